//go:build integration

package keystone

import "strings"

// glanceMetadefs runs every command on metadata definitions.
func (d *desk) glanceMetadefs() {
	const ns = "Bench::Space"
	d.refused(d.t, "403", alice, "glance", "md-namespace-create", ns)
	out := d.glance(admin, "md-namespace-create --display-name Space --description words --visibility public --protected False "+ns)
	d.has("md-namespace-create", out, "namespace="+ns, "display_name=Space", "visibility=public", "protected=False")
	d.has("md-namespace-update", d.glance(admin, "md-namespace-update --description other --visibility public "+ns), "description=other")
	for _, words := range []string{"md-namespace-list", "md-namespace-list --visibility public --page-size 1"} {
		if list := d.glance(alice, words); !strings.Contains(list, ns) {
			d.t.Errorf("%s:\n%s", words, list)
		}
	}
	d.glance(admin, "md-property-create --name size --title Size --schema", `{"type":"integer","minimum":1}`, ns)
	d.glance(admin, "md-property-update --title Length --schema", `{"type":"integer","minimum":2}`, ns, "size")
	d.has("md-property-show", d.glance(alice, "md-property-show "+ns+" size"), "title=Length", "minimum=2")
	d.glance(admin, "md-object-create --name disk --schema", `{"description":"a disk","properties":{"bus":{"title":"Bus","type":"string"}}}`, ns)
	d.glance(admin, "md-object-update --schema", `{"description":"the disk","properties":{"bus":{"title":"The bus","type":"string"}}}`, ns, "disk")
	d.has("md-object-show", d.glance(alice, "md-object-show "+ns+" disk"), "description=the disk")
	d.has("md-object-property-show", d.glance(alice, "md-object-property-show "+ns+" disk bus"), "title=The bus")
	d.glance(admin, "md-tag-create-multiple --names green,blue "+ns) // this client fails with --append before it asks
	d.glance(admin, "md-tag-create --name red "+ns)
	d.glance(admin, "md-tag-update --name rose "+ns+" red")
	d.has("md-tag-show", d.glance(alice, "md-tag-show "+ns+" rose"), "name=rose")
	d.glance(admin, "md-resource-type-associate --prefix hw_ --name OS::Glance::Image "+ns)
	for words, want := range map[string]string{
		"md-property-list " + ns: "Length", "md-object-list " + ns: "disk", "md-tag-list " + ns: "green",
		"md-namespace-resource-type-list " + ns: "OS::Glance::Image", "md-resource-type-list": "OS::Glance::Image",
		"md-namespace-show " + ns: "Space", "md-namespace-show --resource-type OS::Glance::Image " + ns: "hw_size",
	} {
		if list := d.glance(alice, words); !strings.Contains(list, want) {
			d.t.Errorf("%s lacks %q:\n%s", words, want, list)
		}
	}
	d.glance(admin, "md-resource-type-deassociate "+ns+" OS::Glance::Image")
	d.glance(admin, "md-tag-delete "+ns+" rose")
	d.glance(admin, "md-namespace-tags-delete "+ns)
	d.glance(admin, "md-object-delete "+ns+" disk")
	d.glance(admin, "md-namespace-objects-delete "+ns)
	d.glance(admin, "md-property-delete "+ns+" size")
	d.glance(admin, "md-namespace-properties-delete "+ns)
	d.glance(admin, "md-namespace-delete "+ns)
	file := d.path("namespace.json")
	d.write(file, `{"namespace":"Bench::Imported","display_name":"Imported","visibility":"public","tags":[{"name":"t"}]}`)
	d.glance(admin, "md-namespace-import --file", file)
	d.has("md-namespace-import", d.glance(alice, "md-namespace-show Bench::Imported"), "display_name=Imported")
	d.glance(admin, "md-namespace-delete Bench::Imported")
}
