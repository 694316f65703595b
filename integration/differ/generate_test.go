//go:build integration

package differ

import (
	"fmt"
	"strings"
)

// generated are the conversations that come of tables.
func generated() []conversation {
	return []conversation{creates(), patches("application/openstack-images-v2.1-json-patch"), patches("application/openstack-images-v2.0-json-patch"),
		ranges(), methods(), accepts(), limits(), hostile(), scopes()}
}

// values are tried for every property.
var values = []string{`"text"`, `""`, `null`, `true`, `1`, `-1`, `1.5`, `2147483648`, `[]`, `["a","b","a"]`, `[1]`, `{}`, `{"a":"b"}`, `"raw"`, `"public"`, `"community"`}

// properties are those that images have, and some that they have not.
var properties = []string{"name", "visibility", "protected", "os_hidden", "disk_format", "container_format", "min_disk", "min_ram", "tags", "owner",
	"kernel_id", "cinder_encryption_key_deletion_policy", "os_version", "instance_uuid", "custom"}

// fixed are those that only the server sets.
var fixed = []string{"id", "status", "size", "virtual_size", "checksum", "os_hash_algo", "os_hash_value", "created_at", "updated_at", "direct_url",
	"self", "file", "schema", "stores", "locations", "location", "deleted", "deleted_at", "os_glance_foo", "os_glance_import_task"}

// creates makes an image with every property in every form.
func creates() conversation {
	c := conversation{name: "create"}
	add := func(body string) {
		c.steps = append(c.steps, step{who: "member", method: "POST", path: "/v2/images", body: body})
	}
	for _, p := range properties {
		for _, v := range values {
			add(fmt.Sprintf(`{%q:%s}`, p, v))
		}
	}
	for _, p := range fixed {
		for _, v := range []string{`"text"`, `null`, `1`, `[]`} {
			add(fmt.Sprintf(`{%q:%s}`, p, v))
		}
	}
	return c
}

// patches changes an image in every way, in one of the dialects.
func patches(media string) conversation {
	c := conversation{name: "patch " + media[len("application/openstack-images-"):]}
	draft4 := strings.Contains(media, "v2.0")
	add := func(body string) {
		c.steps = append(c.steps, step{who: "member", method: "PATCH", path: "/v2/images/$a", body: body, header: []string{"Content-Type: " + media}})
	}
	one := func(op, pointer, value string) string {
		text := fmt.Sprintf(`{"op":%q,"path":%q`, op, pointer)
		if draft4 {
			text = fmt.Sprintf(`{%q:%q`, op, pointer)
		}
		if value != "" {
			text += `,"value":` + value
		}
		return text + "}"
	}
	c.steps = append(c.steps, parseStep(`member POST /v2/images {"id":"$a","name":"first","custom":"x","a/b":"slash","a~b":"tilde"}`)...)
	for _, body := range []string{"", "{}", "[]", "null", `"x"`, "1", "[1]", "[[]]", "[{}]", "[null]", "[", `{"op":"add","path":"/x","value":"y"}`,
		`[{"op":"add"}]`, `[{"path":"/x"}]`, `[{"op":"add","path":"/x"}]`, `[{"op":"add","value":"x"}]`, `[{"op":1,"path":"/x","value":"y"}]`,
		`[{"op":"add","path":1,"value":"y"}]`, `[{"op":"ADD","path":"/x","value":"y"}]`, `[{"add":"/x","value":"y","remove":"/z"}]`,
		`[{"add":1,"value":"y"}]`, `[{"op":"add","path":"/x","value":"y","extra":1}]`, `[{"op":"replace","add":"/x","path":"/name","value":"y"}]`} {
		add(body)
	}
	for _, op := range []string{"test", "move", "copy", "nonsense"} {
		add("[" + one(op, "/name", `"x"`) + "]")
	}
	for _, pointer := range []string{"", "/", "//", "/ ", "name", "/name/", "/name//x", "/a/b", "/a~1b", "/a~0b", "/a~2b", "/a~", "/~1", "/~0", "/tags/-",
		"/tags/0", "/locations", "/locations/-", "/locations/0", "/Name", "/é", "/x y", "/ x", "/x ", "/x.y", "/-", "/os_glance", "/" + strings.Repeat("k", 255), "/" + strings.Repeat("k", 256)} {
		add("[" + one("add", pointer, `"v"`) + "]")
		add("[" + one("replace", pointer, `"w"`) + "]")
		add("[" + one("remove", pointer, "") + "]")
	}
	for _, p := range properties {
		for i, v := range values {
			op := []string{"replace", "add"}[i%2]
			if p == "owner" { // with add, Glance would take the image away
				op = "replace"
			}
			add("[" + one(op, "/"+p, v) + "]")
		}
		add("[" + one("remove", "/"+p, "") + "]")
	}
	for _, p := range fixed {
		add("[" + one("replace", "/"+p, `"x"`) + "]")
		add("[" + one("add", "/"+p, `null`) + "]")
		add("[" + one("remove", "/"+p, "") + "]")
	}
	// All or nothing, and in order.
	add("[" + one("add", "/n1", `"x"`) + "," + one("remove", "/n2", "") + "]")
	add("[" + one("add", "/n1", `"x"`) + "," + one("replace", "/n1", `"y"`) + "," + one("remove", "/n1", "") + "]")
	add("[" + one("remove", "/custom", "") + "," + one("add", "/custom", `"z"`) + "," + one("add", "/status", `"active"`) + "]")
	c.steps = append(c.steps, parseStep("member GET /v2/images/$a")...)
	return c
}

// ranges downloads in parts.
func ranges() conversation {
	c := conversation{name: "ranges"}
	for _, line := range []string{`member POST /v2/images {"id":"$a","disk_format":"raw","container_format":"bare"}`, `member GET /v2/images/$a/file <Range: bytes=0-1>`,
		`member PUT /v2/images/$a/file @1000`, `member POST /v2/images {"id":"$z","disk_format":"raw","container_format":"bare"}`,
		`member PUT /v2/images/$z/file <Transfer-Encoding: chunked>`} {
		c.steps = append(c.steps, parseStep(line)...)
	}
	for _, r := range []string{"bytes=0-0", "bytes=0-", "bytes=10-19", "bytes=-1", "bytes=-1000", "bytes=-5000", "bytes=-0", "bytes=999-", "bytes=999-999", "bytes=999-5000",
		"bytes=1000-", "bytes=1000-2000", "bytes=5-4", "bytes=-", "bytes=", "bytes", "", "bytes=a-b", "bytes=1-b", "bytes=a-1", "bytes=0-1,3-4", "bytes=0-1,", "bytes = 0-1",
		"bytes=0 - 1", "Bytes=0-1", "BYTES=0-1", "items=0-1", "0-1", "bytes=+1-2", "bytes=1-+2", "bytes=--1", "bytes=0x0-0x1", "bytes=99999999999999999999-", "bytes=0-99999999999999999999",
		"bytes=00-01", "bytes=1.0-2", " bytes=0-1", "bytes= 0-1", "bytes=0-1 ", "bytes 0-1", "bytes:0-1"} {
		for _, id := range []string{"$a", "$z"} {
			c.steps = append(c.steps, step{who: "member", method: "GET", path: "/v2/images/" + id + "/file", header: []string{"Range: " + r}})
		}
	}
	for _, r := range []string{"bytes 0-1/1000", "bytes 0-1/*", "bytes 0-1/999", "bytes 0-1/1001", "bytes 0-999/1000", "bytes 0-1000/1000", "bytes 999-999/1000", "bytes */1000", "bytes 0-1", "bytes 5-4/1000",
		"bytes=0-1/1000", "items 0-1/1000", "nonsense", "", "bytes a-b/c", "bytes 1000-1001/2000"} {
		c.steps = append(c.steps, step{who: "member", method: "GET", path: "/v2/images/$a/file", header: []string{"Content-Range: " + r}})
	}
	c.steps = append(c.steps, step{who: "member", method: "GET", path: "/v2/images/$a/file", header: []string{"Range: bytes=0-1", "Content-Range: bytes 4-5/1000"}},
		step{who: "member", method: "GET", path: "/v2/images/$a/file", header: []string{"Range: bytes=0-1", "If-Range: \"x\""}})
	return c
}

// methods sends every method to every kind of path.
func methods() conversation {
	c := conversation{name: "methods"}
	paths := []string{"/v2/images?limit=0", "/v2/images/$x", "/v2/images/$x/file", "/v2/images/$x/actions/deactivate", "/v2/images/$x/actions/nonsense", "/v2/images/$x/members",
		"/v2/images/$x/members/$one", "/v2/images/$x/tags/t", "/v2/images/$x/tags", "/v2/schemas/image", "/v2/schemas/images", "/v2/schemas/nonsense", "/v2/tasks", "/v2/tasks/$x",
		"/v2/info/import", "/v2/info/stores", "/v2/info/stores/detail", "/v2/info/usage", "/v2/stores/fast/$x", "/v2/images/$x/stage", "/v2/images/$x/import",
		"/v2/images/$x/tasks", "/v2/images/$x/nonsense", "/v2/nonsense", "/versions", "/", "/healthcheck"}
	for _, p := range paths {
		for _, m := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "NONSENSE"} {
			c.steps = append(c.steps, step{who: "admin", method: m, path: p})
		}
	}
	return c
}

// accepts asks for errors and answers in every form.
func accepts() conversation {
	c := conversation{name: "accept"}
	for _, a := range []string{"", "*/*", "application/json", "text/html", "text/plain", "text/*", "application/*", "application/xml", "application/json;q=0.5,text/html", "text/html;q=0.1,application/json",
		"application/json,text/html", "text/plain,application/json", "image/png", "nonsense", "application/vnd.openstack.images-v2", "application/vnd.openstack.images-v2.7", "application/vnd.openstack.images-v9", "*/*;q=0", ",", "application/json; charset=utf-8"} {
		for _, p := range []string{"/v2/images/$x", "/v2/images?limit=0", "/v2/images?limit=x", "/healthcheck", "/images?limit=0", "/v2/images/$x/file"} {
			c.steps = append(c.steps, step{who: "member", method: "GET", path: p, header: []string{"Accept: " + a}})
		}
		c.steps = append(c.steps, step{who: "none", method: "GET", path: "/v2/images", header: []string{"Accept: " + a}},
			step{who: "member", method: "PUT", path: "/v2/images", header: []string{"Accept: " + a}})
	}
	return c
}

// scopes has people ask whose tokens are for no project, or who have a role
// that means nothing here.
func scopes() conversation {
	c := conversation{name: "scopes"}
	for _, line := range []string{`member POST /v2/images {"id":"$a","disk_format":"raw","container_format":"bare","visibility":"community"}`, `member PUT /v2/images/$a/file x`,
		`member POST /v2/images {"id":"$b","visibility":"private"}`, `member POST /v2/images {"id":"$c"}`} {
		c.steps = append(c.steps, parseStep(line)...)
	}
	for _, who := range []string{"system", "domain", "unscoped", "service", "stranger"} {
		for _, line := range []string{"GET /v2/images?limit=0", "GET /v2/images/$a", "GET /v2/images/$b", "GET /v2/images/$a/file", `POST /v2/images {"name":"x"}`, `POST /v2/images {"owner":"$one"}`,
			`PATCH /v2/images/$a [{"op":"replace","path":"/name","value":"x"}]`, "PUT /v2/images/$a/tags/t", "DELETE /v2/images/$a", "PUT /v2/images/$b/file x", "GET /v2/images/$c/members",
			`POST /v2/images/$c/members {"member":"$two"}`, "POST /v2/images/$a/actions/deactivate", "GET /v2/tasks?limit=0", "GET /v2/info/stores", "GET /v2/info/stores/detail", "GET /v2/info/import",
			"GET /v2/schemas/image", "GET /v2/nonsense", "DELETE /v2/stores/fast/$a", "GET /v2/images/$a/tasks"} {
			c.steps = append(c.steps, parseStep(who+" "+line)...)
		}
	}
	return c
}
