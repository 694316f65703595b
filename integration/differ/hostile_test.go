//go:build integration

package differ

import (
	"fmt"
	"strings"
)

// limits goes up to each limit and one beyond.
func limits() conversation {
	c := conversation{name: "limits"}
	add := func(who, method, path, body string) {
		c.steps = append(c.steps, step{who: who, method: method, path: path, body: body})
	}
	for _, n := range []int{255, 256, 65535, 65536} {
		long := strings.Repeat("x", n)
		for _, key := range []string{"name", "custom", "os_version", "disk_format"} {
			add("member", "POST", "/v2/images", fmt.Sprintf(`{%q:%q}`, key, long))
		}
		add("admin", "POST", "/v2/images", fmt.Sprintf(`{"owner":%q}`, long))
		add("member", "POST", "/v2/images", fmt.Sprintf(`{"tags":[%q]}`, long))
		add("member", "POST", "/v2/images", fmt.Sprintf(`{%q:"x"}`, long))
	}
	add("member", "POST", "/v2/images", fmt.Sprintf(`{"name":%q}`, strings.Repeat("é", 255)))
	add("member", "POST", "/v2/images", fmt.Sprintf(`{"name":%q}`, strings.Repeat("é", 256)))
	for _, n := range []int{128, 129, 1000} {
		add("member", "POST", "/v2/images", "{"+several(n, `"p%d":"x"`)+"}")
		add("member", "POST", "/v2/images", `{"tags":[`+several(n, `"t%d"`)+`]}`)
	}
	add("member", "POST", "/v2/images", "{"+several(10000, `"p%d":"x"`)+"}")
	add("member", "POST", "/v2/images", `{"id":"$full",`+several(128, `"p%d":"x"`)+`,"tags":[`+several(128, `"t%d"`)+`]}`)
	for _, ops := range []string{
		`[{"op":"add","path":"/more","value":"x"}]`, `[{"op":"replace","path":"/p1","value":"y"}]`, `[{"op":"add","path":"/p2","value":"y"}]`,
		`[{"op":"remove","path":"/p0"},{"op":"add","path":"/more","value":"x"}]`, `[{"op":"add","path":"/again","value":"x"},{"op":"remove","path":"/again"}]`,
		`[{"op":"replace","path":"/tags","value":[` + several(129, `"t%d"`) + `]}]`, `[{"op":"replace","path":"/tags","value":[` + several(300, `"t%d"`) + `]}]`,
		"[" + several(1000, `{"op":"replace","path":"/name","value":"n%d"}`) + "]", "[" + several(129, `{"op":"add","path":"/q%d","value":"x"}`) + "]",
	} {
		add("member", "PATCH", "/v2/images/$full", ops)
	}
	add("member", "PUT", "/v2/images/$full/tags/more", "")
	add("member", "PUT", "/v2/images/$full/tags/t1", "")
	add("member", "GET", "/v2/images/$full", "")
	for _, n := range []int{255, 256, 4000} {
		add("member", "PUT", "/v2/images/$full/tags/"+strings.Repeat("t", n), "")
		add("member", "GET", "/v2/images/"+strings.Repeat("i", n), "")
		add("member", "GET", "/v2/images?name="+strings.Repeat("n", n), "")
		add("member", "POST", "/v2/images/$full/members", fmt.Sprintf(`{"member":%q}`, strings.Repeat("m", n)))
		add("member", "GET", "/v2/images/$full/members/"+strings.Repeat("m", n), "")
		add("member", "GET", "/v2/schemas/"+strings.Repeat("s", n), "")
		add("admin", "GET", "/v2/tasks/"+strings.Repeat("t", n), "")
	}
	return c
}

// several puts n numbers into a form.
func several(n int, form string) string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf(form, i))
	}
	return strings.Join(all, ",")
}

// hostile sends what nobody should.
func hostile() conversation {
	c := conversation{name: "hostile"}
	add := func(who, method, path, body string, header ...string) {
		c.steps = append(c.steps, step{who: who, method: method, path: path, body: body, header: header})
	}
	add("member", "POST", "/v2/images", `{"id":"$a","disk_format":"raw","container_format":"bare"}`)
	for _, depth := range []int{10, 500, 100000} {
		deep := strings.Repeat("[", depth) + strings.Repeat("]", depth)
		add("member", "POST", "/v2/images", `{"name":`+deep+`}`)
		add("member", "POST", "/v2/images", strings.Repeat(`{"a":`, depth)+"1"+strings.Repeat("}", depth))
		add("member", "PATCH", "/v2/images/$a", deep)
		add("member", "POST", "/v2/images/$a/members", `{"member":`+deep+`}`)
		add("admin", "POST", "/v2/tasks", `{"type":"import","input":`+deep+`}`)
	}
	for _, bad := range []string{"\xff", "{\"name\":\"\xff\"}", "{\"\xc3\x28\":\"x\"}", "\xef\xbb\xbf{}", "\x00", "{\"name\":\"a\x00b\"}", "{\"name\":\"a\nb\"}", `{"name":"\u0000"}`, `{'name':'x'}`,
		`{"name":"x",}`, `{name:"x"}`, `{"a":Infinity}`, `{"a":-Infinity}`, `{"min_disk":1e400}`, `{"min_disk":-0}`, `{"min_disk":0x10}`, `{"min_disk":010}`, `{"name":"x"}{"name":"y"}`, "// x\n{}", "   ", "\t{}\n"} {
		add("member", "POST", "/v2/images", bad)
		add("member", "PATCH", "/v2/images/$a", bad)
		add("member", "POST", "/v2/images/$a/members", bad)
		add("other", "PUT", "/v2/images/$a/members/$two", bad)
		add("admin", "POST", "/v2/tasks", bad)
	}
	for _, n := range []int{1, 40, 250, 1000, 4000, 7000} {
		add("none", "GET", "/v2/images", "", "X-Auth-Token: "+strings.Repeat("t", n))
		add("none", "GET", "/v2/images", "", "X-Auth-Token: gAAAAAB"+strings.Repeat("t", n))
	}
	for _, token := range []string{"é", "%00", "a b", "../../v3", "a/b?c#d", "a;b", "\"quoted\"", "{}", "null", "undefined"} {
		add("none", "GET", "/v2/images", "", "X-Auth-Token: "+token)
	}
	// Bodies where none belong.
	for _, at := range []string{"GET /v2/images/$a", "DELETE /v2/images/$x", "GET /v2/images/$a/file", "POST /v2/images/$a/actions/deactivate", "POST /v2/images/$a/actions/reactivate",
		"PUT /v2/images/$a/tags/t", "DELETE /v2/images/$a/tags/t", "GET /v2/images/$a/members", "GET /v2/images/$a/members/$two", "DELETE /v2/images/$a/members/$two", "GET /v2/images?limit=0", "GET /v2/schemas/image",
		"GET /v2/info/stores", "GET /v2/info/stores/detail", "GET /v2/info/import", "GET /v2/info/usage", "GET /v2/tasks", "GET /v2/tasks/$x", "GET /v2/images/$a/tasks", "DELETE /v2/stores/fast/$x", "GET /versions", "GET /healthcheck", "GET /", "GET /v2/nonsense"} {
		method, path, _ := strings.Cut(at, " ")
		for _, body := range []string{"{}", "x", "@100000"} {
			add("admin", method, path, body)
			add("admin", method, path, body, "Transfer-Encoding: chunked")
		}
	}
	for _, kind := range []string{"", "nonsense", "text/plain", "application/octet-stream", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "application/json; charset=utf-16", "a/b;;;", strings.Repeat("k", 4000)} {
		for _, at := range []string{"POST /v2/images", "PATCH /v2/images/$a", "PUT /v2/images/$x/file", "POST /v2/images/$a/members", "POST /v2/tasks"} {
			method, path, _ := strings.Cut(at, " ")
			add("admin", method, path, "{}", "Content-Type: "+kind)
		}
	}
	return c
}
