//go:build integration

package differ

import (
	"math/rand/v2"
	"net/url"
	"strings"
)

// stock are the images that lists are asked for; they are made first.
const stock = `
member POST /v2/images {"id":"$a","name":"alpha","disk_format":"raw","container_format":"bare","min_ram":512,"tags":["red","blue"],"os_distro":"debian"}
member PUT /v2/images/$a/file @1000
member POST /v2/images {"id":"$b","name":"beta","disk_format":"qcow2","container_format":"bare","visibility":"private","min_disk":10,"tags":["red"],"hw_disk_bus":"scsi"}
member POST /v2/images {"id":"$c","name":"gamma, delta","visibility":"community","os_distro":"ubuntu"}
member POST /v2/images {"id":"$d","name":"say \"hi\"","protected":true,"os_hidden":true}
other POST /v2/images {"id":"$e","name":"alpha","disk_format":"aki","container_format":"aki","tags":["green"]}
other PUT /v2/images/$e/file @70000
other POST /v2/images {"id":"$f","name":"foreign","visibility":"private"}
other POST /v2/images {"id":"$g","name":"known","visibility":"community"}
other POST /v2/images {"id":"$h","name":"shared pending"}
other POST /v2/images/$h/members {"member":"$one"}
other POST /v2/images {"id":"$i","name":"shared accepted"}
other POST /v2/images/$i/members {"member":"$one"}
member PUT /v2/images/$i/members/$one {"status":"accepted"}
other POST /v2/images {"id":"$j","name":"shared rejected"}
other POST /v2/images/$j/members {"member":"$one"}
member PUT /v2/images/$j/members/$one {"status":"rejected"}
admin POST /v2/images {"id":"$k","name":"everybody's","visibility":"public","disk_format":"raw","container_format":"bare","min_ram":1024}
admin PUT /v2/images/$k/file @1000
admin POST /v2/images {"id":"$l","name":"hidden","visibility":"public","os_hidden":true}
admin POST /v2/images {"id":"$m","visibility":"public","name":null,"owner":null}
admin POST /v2/images {"id":"$n","name":"of one","owner":"$one","visibility":"private","disk_format":"vmdk","container_format":"ova"}
member POST /v2/images {"id":"$o","name":"off","disk_format":"raw","container_format":"bare"}
member PUT /v2/images/$o/file @10
member POST /v2/images/$o/actions/deactivate`

// queries are asked by everybody who has a token.
func queries() []string {
	return strings.Split(strings.TrimSpace(`

limit=3
limit=0
limit=1&marker=$k
limit=5&marker=$a
marker=$f
marker=nonsense
marker=
limit=-1
limit=x
limit=
limit=99999
limit=2&limit=3
name=alpha
name=in:alpha,beta
name=in:"gamma, delta",beta
name=in:"say \"hi\"",beta
name=in:"open
name=in:
name=eq:alpha
name=neq:alpha
name=nobody
name=
name=
name=foo:bar
id=$a
id=in:$a,$b
id=in:$a,$f
id=nonsense
status=active
status=in:active,queued
status=in:active,nonsense
status=deactivated
status=nonsense
disk_format=raw
disk_format=in:raw,aki
disk_format=nonsense
container_format=bare
container_format=in:bare,ova
visibility=public
visibility=private
visibility=shared
visibility=community
visibility=all
visibility=nonsense
visibility=
visibility=shared&member_status=pending
visibility=shared&member_status=accepted
visibility=shared&member_status=rejected
visibility=shared&member_status=all
member_status=all
member_status=pending
member_status=nonsense
owner=$one
owner=$two
owner=$one&visibility=community
owner=$two&visibility=community
owner=$two&visibility=private
owner=nobody
owner=
os_hidden=true
os_hidden=false
os_hidden=True
os_hidden=1
os_hidden=
protected=true
protected=false
protected=True
protected=x
tag=red
tag=red&tag=blue
tag=nothing
tag=
tag=red&tag=
size_min=1
size_min=1000&size_max=1000
size_max=999
size_min=-1
size_min=x
size_max=
size=1000
size=x
min_ram=512
min_ram_min=512
min_ram_max=1023
min_ram=x
min_disk=10
min_disk_min=1&min_disk_max=10
virtual_size_min=1
checksum=nonsense
checksum=
os_hash_algo=sha512
os_hash_value=nonsense
os_distro=debian
os_distro=nothing
os_distro=
hw_disk_bus=scsi
hw_disk_bus=scsi&os_distro=debian
hw_disk_bus_min=1
no_such_property=1
created_at=gt:2020-01-01T00:00:00Z
created_at=lt:2020-01-01T00:00:00Z
created_at=gte:2020-01-01T00:00:00
created_at=lte:2099-01-01
created_at=neq:2020-01-01T00:00:00Z
created_at=eq:2020-01-01T00:00:00Z
created_at=2020-01-01T00:00:00Z
created_at=gt:nonsense
created_at=foo:2020-01-01T00:00:00Z
created_at=
created_at=in:2020-01-01T00:00:00Z
created_at=gt:2020-01-01T00:00:00%2B02:00
updated_at=gt:2020-01-01T00:00:00.123Z
updated_at=nonsense
sort_key=name
sort_key=name&sort_dir=asc
sort_key=name&sort_key=size&sort_dir=asc
sort_key=name&sort_key=size&sort_dir=asc&sort_dir=desc
sort_key=name&sort_dir=asc&sort_dir=desc
sort_key=size&sort_dir=desc
sort_key=id
sort_key=status&sort_dir=asc
sort_key=disk_format&sort_dir=asc
sort_key=container_format
sort_key=created_at&sort_dir=asc
sort_key=updated_at
sort_key=nonsense
sort_key=
sort_key=owner
sort_key=min_ram
sort_key=min_disk
sort_key=visibility
sort_dir=asc
sort_dir=nonsense
sort_dir=
sort=name
sort=name:asc
sort=name:asc,size:desc
sort=name:asc,size
sort=size,name:asc,id:desc
sort=name:nonsense
sort=nonsense:asc
sort=
sort=name:asc&sort_key=name
sort=name:asc&sort_dir=asc
sort=name:asc:desc
sort=,name
sort=name:asc&limit=2
sort=name:asc&limit=2&marker=$a
sort_key=name&sort_dir=asc&limit=3&marker=$b
changes-since=2020-01-01
changes-since=
deleted=true
deleted=false
deleted=nonsense
is_public=true
property-os_distro=debian
direct_url=x
self=x
location=x
locations=x
os_glance_foo=x
%zz=1
name=%ff
name=%00
name=%C3%A9
a=1&b=2&c=3
;
&&&
name=alpha;status=active
name=alpha&name=beta
status=active&status=queued
name=+alpha
fields=id
detail=true`), "\n")
}

// listing makes the stock and asks for lists of it.
func listing() []conversation {
	c := conversation{name: "lists"}
	for line := range strings.SplitSeq(strings.TrimSpace(stock), "\n") {
		c.steps = append(c.steps, parseStep(line)...)
	}
	for _, q := range queries() {
		q = strings.NewReplacer(" ", "%20", `"`, "%22", `\`, "%5C").Replace(q)
		for _, who := range []string{"member", "admin"} {
			c.steps = append(c.steps, step{who: who, method: "GET", path: "/v2/images?" + q})
		}
	}
	for _, who := range people {
		c.steps = append(c.steps, step{who: who, method: "GET", path: "/v2/images"},
			step{who: who, method: "GET", path: "/v2/images?visibility=all&os_hidden=true"})
	}
	c.steps = append(c.steps, randomQueries(200)...)
	for _, sort := range []string{"", "sort=name:asc", "sort=name:desc", "sort=size:asc", "sort=size:desc,name:asc", "sort=status:asc,disk_format:desc", "sort=container_format:asc",
		"sort=id:asc", "sort=updated_at:asc", "sort=created_at:asc", "sort_key=disk_format&sort_key=name&sort_dir=asc", "sort=disk_format:desc,size:asc,name:desc"} {
		for _, limit := range []string{"1", "2", "5"} {
			for _, who := range []string{"member", "admin"} {
				c.steps = append(c.steps, step{who: who, method: "PAGES", path: "/v2/images?visibility=all&limit=" + limit + "&" + sort})
			}
		}
	}
	return []conversation{c}
}

// randomQueries puts several parameters together.
func randomQueries(count int) (steps []step) {
	choices := map[string][]string{
		"name": {"alpha", "in:alpha,beta,known", "foreign", "in:\"gamma, delta\",off"}, "status": {"active", "queued", "in:active,deactivated"},
		"visibility": {"public", "private", "shared", "community", "all"}, "member_status": {"accepted", "pending", "rejected", "all"},
		"owner": {"$one", "$two", "$adm"}, "os_hidden": {"true", "false"}, "protected": {"true", "false"}, "tag": {"red", "blue", "green"},
		"size_min": {"0", "11", "1000"}, "size_max": {"10", "1000", "70000"}, "disk_format": {"raw", "in:raw,aki,qcow2"}, "min_ram_min": {"1"},
		"os_distro": {"debian"}, "sort": {"name:asc", "size:asc,name:desc", "status,name:asc", "disk_format:asc"}, "limit": {"1", "2", "5"},
		"marker": {"$a", "$k", "$e"}, "sort_key": {"size", "name"}, "sort_dir": {"asc", "desc"}, "id": {"in:$a,$b,$c,$e,$g,$k"},
	}
	keys := []string{"name", "status", "visibility", "member_status", "owner", "os_hidden", "protected", "tag", "size_min", "size_max",
		"disk_format", "min_ram_min", "os_distro", "sort", "limit", "marker", "sort_key", "sort_dir", "id"}
	rnd := rand.New(rand.NewPCG(25, 1))
	for range count {
		var query []string
		for _, i := range rnd.Perm(len(keys))[:2+rnd.IntN(3)] {
			values := choices[keys[i]]
			value := url.QueryEscape(values[rnd.IntN(len(values))])
			query = append(query, keys[i]+"="+strings.ReplaceAll(value, "%24", "$"))
		}
		who := []string{"member", "reader", "other", "admin"}[rnd.IntN(4)]
		steps = append(steps, step{who: who, method: "GET", path: "/v2/images?" + strings.Join(query, "&")})
	}
	return steps
}
