//go:build integration

package differ

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// walks are conversations of random steps on a few images: what one step does
// is what later ones find.
func walks(count, length int) (all []conversation) {
	for i := range count {
		w := &walk{rand.New(rand.NewPCG(uint64(i), 25)), i}
		c := conversation{name: fmt.Sprintf("walk %d", i)}
		for range length {
			c.steps = append(c.steps, w.step())
		}
		for _, id := range walkers {
			c.steps = append(c.steps, step{who: "admin", method: "GET", path: "/v2/images/" + id},
				step{who: "admin", method: "GET", path: "/v2/images/" + id + "/members"}, step{who: "admin", method: "GET", path: "/v2/images/" + id + "/file"})
		}
		all = append(all, c)
	}
	return all
}

// walkers are the images of a walk.
var walkers = []string{"$a", "$b", "$c"}

type walk struct {
	*rand.Rand
	number int
}

func (w *walk) pick(list ...string) string { return list[w.IntN(len(list))] }

// step is a random one. Those that change an image more than others are rarer.
func (w *walk) step() step {
	s := step{who: w.pick("admin", "member", "member", "member", "other", "other", "reader", "otherreader"), method: "GET"}
	image := "/v2/images/" + w.pick(walkers...)
	switch w.IntN(20) {
	case 0, 1, 2:
		s.method, s.path, s.body = "POST", "/v2/images", w.create()
	case 3, 4, 5, 6:
		s.method, s.path, s.body = "PATCH", image, w.patch()
	case 7:
		s.method, s.path = w.pick("DELETE", "GET", "GET", "GET"), image
	case 8, 9:
		s.method, s.path, s.body = "PUT", image+"/file", fmt.Sprintf("@%d", 1+w.IntN(5000))
	case 10:
		s.path = image + "/file"
	case 11, 12:
		s.method, s.path = "POST", image+"/actions/"+w.pick("deactivate", "reactivate")
	case 13:
		s.method, s.path = w.pick("PUT", "DELETE"), image+"/tags/"+w.pick("red", "blue", "green")
	case 14, 15:
		s.method, s.path, s.body = "POST", image+"/members", fmt.Sprintf(`{"member":%q}`, w.pick("$one", "$two", "third"))
	case 16:
		s.method, s.path, s.body = "PUT", image+"/members/"+w.pick("$one", "$two"), fmt.Sprintf(`{"status":%q}`, w.pick("accepted", "rejected", "pending"))
	case 17:
		s.method, s.path = w.pick("DELETE", "GET"), image+"/members/"+w.pick("$one", "$two", "third")
	case 18:
		s.path = image + "/members"
	default:
		s.path = fmt.Sprintf("/v2/images?name=in:walk%d,renamed%[1]d&%s", w.number, w.pick("visibility=all", "visibility=shared&member_status=all", "status=active", "tag=red",
			"sort=size:asc,name:asc", "limit=1", "os_hidden=true", "protected=true", "owner=$one", "os_distro=debian", "disk_format=raw"))
	}
	return s
}

func (w *walk) create() string {
	body := fmt.Sprintf(`{"id":%q,"name":"walk%d"`, w.pick(walkers...), w.number)
	for _, p := range []string{`"disk_format":"raw","container_format":"bare"`, `"disk_format":"raw","container_format":"bare"`, `"visibility":"private"`, `"visibility":"community"`,
		`"protected":true`, `"os_hidden":true`, `"tags":["red","green"]`, `"os_distro":"debian"`, `"min_disk":3`} {
		key, _, _ := strings.Cut(p, ":")
		if w.IntN(4) == 0 && !strings.Contains(body, key+":") {
			body += "," + p
		}
	}
	return body + "}"
}

func (w *walk) patch() string {
	body := "["
	for i := range 1 + w.IntN(3) {
		if i > 0 {
			body += ","
		}
		body += w.pick(`{"op":"replace","path":"/visibility","value":"shared"}`, `{"op":"replace","path":"/visibility","value":"shared"}`, `{"op":"replace","path":"/visibility","value":"private"}`,
			`{"op":"replace","path":"/visibility","value":"community"}`, `{"op":"replace","path":"/visibility","value":"public"}`, `{"op":"replace","path":"/protected","value":true}`,
			`{"op":"replace","path":"/protected","value":false}`, `{"op":"replace","path":"/protected","value":false}`, `{"op":"replace","path":"/os_hidden","value":true}`,
			`{"op":"replace","path":"/os_hidden","value":false}`, `{"op":"replace","path":"/disk_format","value":"raw"}`, `{"op":"replace","path":"/container_format","value":"bare"}`,
			`{"op":"replace","path":"/disk_format","value":null}`, fmt.Sprintf(`{"op":"replace","path":"/name","value":"renamed%d"}`, w.number), `{"op":"replace","path":"/tags","value":["blue"]}`,
			`{"op":"add","path":"/os_distro","value":"debian"}`, `{"op":"remove","path":"/os_distro"}`, `{"op":"replace","path":"/os_distro","value":"ubuntu"}`, `{"op":"add","path":"/x","value":"y"}`,
			`{"op":"remove","path":"/x"}`, `{"op":"replace","path":"/min_disk","value":7}`, `{"op":"replace","path":"/owner","value":"$two"}`, `{"op":"remove","path":"/name"}`,
			`{"op":"replace","path":"/status","value":"active"}`, `{"op":"add","path":"/os_glance_x","value":"y"}`)
	}
	return body + "]"
}
