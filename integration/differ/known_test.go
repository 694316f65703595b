//go:build integration

package differ

import "regexp"

// A reason is why one kind of difference may be.
type reason struct {
	step string // fits the request, as step.String writes it
	part string // fits "part: glance → gateway"
	why  string
	seen int
}

// known is the list of the differences that may be.
var known = []*reason{
	// What Glance does wrong.
	{part: `^status: 500 → (200|201|204|400|404|413|416|431)`, why: "Glance fails over these"},
	{part: `^header Openstack-Image-Store-Ids: fast,os_glance_staging_store,os_glance_tasks_store,slow,web → fast,slow,web`, why: "Glance lets its own two places show"},
	{step: `GET /v2/images\?.*(tag|limit|name|status|sort_key)=[^&]*&(tag|limit|name|status|sort_key)=`, part: `^body\.(first|next): |^body.images`, why: "Glance's links, and with two limits its list, lose what is there twice"},
	{step: `GET /v2/images\?.*marker=`, part: `^status: 403 → 400`, why: "Glance tells of images that one may not see"},
	{step: `PAGES .*size`, part: `^(body|status: no answer → 200)`, why: "Glance's pages lose images that have no size, or begin again with them"},
	{step: `PAGES .*sort_key=.*sort_key=`, part: `^(body|status: no answer → 200)`, why: "Glance's links lose what is there twice"},
	{step: `GET /v2/images\?(size|min_ram)=x`, part: `^status: 200 → 400`, why: "Glance compares a number with a word"},
	{step: `GET /v2/images\?%zz`, part: `^status: 200 → 400`, why: "that is no query"},
	{step: `GET /v2/images\?visibility=$`, part: `^body.images`, why: "nothing asked for is no filter"},
	{step: `Range: bytes=(1-b|1-\+2|0 - 1|-0)>|Range: bytes = `, part: `^status: 206 → 416`, why: "Glance reads numbers as it likes"},
	{step: `\$z/file <Range: bytes=-\d+>`, part: `^status: 206 → 416`, why: "there are no last bytes of none"},
	{step: `GET /v2/images/\$b$`, part: `^body.*tags\[\d\]: `, why: "Glance reads UTF-8 in paths as Latin-1"},
	{step: `"op":"add","path":"/owner"`, part: `^status: 200 → 403`, why: "Glance lets members give their images away"},
	{step: `"add":"/(min_disk|min_ram|owner)"`, part: `^status: 409 → (400|403)`, why: "more than one thing is wrong"},
	{part: `^status: 404 → 405`, why: "these paths are there, with other methods"},
	{part: `^status: 501 → (404|405)`, why: "paths that are not there are not there with any method"},
	{step: `/v2/tasks/`, part: `^header Allow: DELETE,GET → GET`, why: "DELETE is not allowed: that is what the answer says"},
	{step: `/healthcheck`, part: `^status: 200 → 405`, why: "the health check is read"},
	{step: `GET /v2$`, part: `^status: 302 → 404`, why: "Glance sends clients to a page that is not there"},

	// What is better on purpose.
	{part: `^header X-Openstack-Request-Id: - → present`, why: "every answer has one"},
	{part: `^status: (401|200) → 431`, why: "a request id that is too long is told first"},
	{part: `^body.(title|code): ".*Request Range Not Satisfiable" →`, why: "RFC 9110's name"},
	{step: `Range: `, part: `^header Content-Range: - → bytes \*/\d+`, why: "RFC 9110 wants the size in a 416"},
	{part: `^header Content-Type: text/html; charset=UTF-8 → (-|application/json)`, why: "an answer without a body has no type, and HEAD that of GET"},
	{part: `^body.*virtual_size: null → \d+`, why: "newer: 2025.1"},
	{step: `virtual_size_min`, part: `^body.images`, why: "newer: 2025.1"},
	{step: `"name":"a","name":"b"`, part: `^status: 201 → 400`, why: "a key twice"},
	{step: `\{" ?":"x"\}`, part: `^status: 201 → 400`, why: "a property without a name"},
	{step: `"/ ?"`, part: `^status: (200|409) → 400`, why: "a property without a name"},
	{step: `/k{256}`, part: `^status: 200 → (400|409)`, why: "a property whose name is too long"},
	{step: `"x{1000}`, part: `^status: 201 → 400`, why: "what MySQL would not hold: 64 KiB"},
	{step: `/members.*m{256}`, part: `^status: 200 → (400|404)`, why: "what MySQL would not hold: 255 characters"},
	{step: `^admin (GET|DELETE) .*<Transfer-Encoding: chunked>`, part: `^status: (200|204|404) → 400`, why: "Glance does not see such a body"},
	{step: `😀`, part: `^status: 400 → 201`, why: "our catalog holds all of Unicode"},
	{step: `"min_disk":`, part: `^body.min_disk: (1|100)\.0 → (1|100)$`, why: "a whole number"},
	{part: `^body.*(ramdisk_id|kernel_id): null → -`, why: "a property that is null is one that is not there"},
	{part: `^body.*owner: "" → null`, why: "nobody"},
	{step: `APPLICATION/`, part: `^status: 415 → (200|204)`, why: "media types know no case"},
	{step: `<(X-Image-Meta-Store|Content-Range): >`, part: `^status: (400|416) → (204|200)`, why: "an empty header is none"},
	{step: `<Accept: >`, part: `^header Content-Type: text/plain; charset=UTF-8 → text/html; charset=UTF-8`, why: "an empty header is none"},
	{step: `<Accept: nonsense>`, part: `^header Content-Type: text/html; charset=UTF-8 → text/plain`, why: "none of the types is accepted"},
	{step: `<Accept: application/json; charset=utf-8>`, part: `^(header Content-Type|body)`, why: "that is JSON"},
	{step: `/healthcheck <Accept:`, part: `^(body|header)`, why: "plain text for whoever does not ask for JSON"},
	{step: `/tags/a%2Fb`, part: `^status: 404 → 204`, why: "a tag with a slash"},
	{step: `POST .*/members \{"member":(1|" ")\}`, part: `^status: 200 → 400`, why: "no project is called that"},
	{step: `/v2//images|/v2/%69mages`, part: `^status: 200 → 404`, why: "paths as they are"},
	{step: `/v2%2Fimages`, part: `^status: 200 → 300`, why: "paths as they are"},
	{step: `X-Service-Token: nonsense`, part: `^status: 200 → 401`, why: "a service that has no token of this cloud is none"},
	{step: `GET .*/\$a/members$`, part: `^status: 200 → 403`, why: "an image without an owner is the administrators'"},
	{step: `^service GET /v2/info/stores/detail`, part: `^status: 403 → 200`, why: "newer: services may look"},
	{step: `/info/stores/detail`, part: `^body.stores\[\d\].weight: - → 0`, why: "newer"},
	{step: `/info/stores/detail`, part: `^body.stores\[\d\].properties.`, why: "other folders, and pieces of other sizes"},
	{step: `/schemas/task`, part: `progress|type.enum\[\d\]: - → |owner.type`, why: "our captures, newer tasks, and tasks of nobody without Keystone"},

	{step: `/import .*"stores":"fast"`, part: `^status: 409 → 400`, why: "a word is no list"},
	{step: `/v2/tasks\?type=api_image_import`, part: `^status: 400 → 200`, why: "there are tasks of this type"},
}

// knownProtected is the list for properties that are protected.
var knownProtected = []*reason{
	{part: `^header X-Openstack-Request-Id: - → present`, why: "every answer has one"},
	{part: `^header Content-Type: text/html; charset=UTF-8 → -`, why: "an answer without a body has no type"},
	{step: `GET /v2/images\?.*&(seen|secret)_a=1`, part: `^body.images`, why: "a filter would tell the value"},
	{step: `^admin .*/v2/images/\$a`, part: `^body.secret_[ab]: - → "x"`, why: "Glance loses what one may not see when one changes something else"},
	{step: `^admin .*"remove","path":"/secret_a"`, part: `^status: 409 → 200`, why: "as above"},
}

// explained tells whether a difference is in the list.
func (d difference) explained(known []*reason) bool {
	found := false
	for _, k := range known {
		if regexp.MustCompile(k.part).MatchString(d.text) && regexp.MustCompile(k.step).MatchString(d.step.String()) {
			k.seen++
			found = true
		}
	}
	return found
}
