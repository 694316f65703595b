package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/seed-478a8fee/platter/cmd/platter/client"
)

const mdHelp = `Metadata definitions say which properties there are for images, volumes,
flavors and the like, and what they mean. They come in namespaces. Files of
them, one namespace in each, are as Glance has them (its packages put theirs
into /etc/glance/metadefs).

Examples:
   platter md import /etc/glance/metadefs
   platter md list --resource-type OS::Glance::Image
   platter md export OS::Compute::Hypervisor`

// maxDefinition bounds a file of definitions.
const maxDefinition = 1 << 20

func (p *program) mdCommand() *cli.Command {
	return &cli.Command{
		Name:        "md",
		Usage:       "metadata definitions",
		Category:    "Images",
		Description: mdHelp,
		Subcommands: []*cli.Command{
			{Name: "list", Usage: "list namespaces", Action: p.mdList, Flags: append([]cli.Flag{
				&cli.StringFlag{Name: "resource-type", Usage: "only those for this `TYPE` of resource"},
				&cli.StringFlag{Name: "visibility", Usage: "only `public` or private ones"},
			}, formatFlags()...)},
			{Name: "show", Usage: "show a namespace, and how much is in it", ArgsUsage: "NAMESPACE", Action: p.mdShow, Flags: formatFlags()},
			{Name: "resource-types", Usage: "list the types of resources that definitions are for", Action: p.mdTypes, Flags: formatFlags()},
			{Name: "import", Usage: "make namespaces of files", ArgsUsage: "FILE|DIRECTORY...", Action: p.mdImport, Flags: []cli.Flag{
				&cli.BoolFlag{Name: "replace", Usage: "replace the namespaces that are there already; without it they stay as they are"},
			}},
			{Name: "export", Usage: "print a namespace as such a file", ArgsUsage: "NAMESPACE", Action: p.mdExport},
			{Name: "delete", Usage: "delete namespaces with all that is in them", ArgsUsage: "NAMESPACE...", Action: p.mdDelete, Flags: []cli.Flag{
				&cli.BoolFlag{Name: "force", Usage: "also protected ones"},
			}},
		},
	}
}

func (p *program) mdList(c *cli.Context) error {
	cl, err := p.connect(c)
	if err != nil {
		return err
	}
	query := url.Values{"sort_key": {"namespace"}, "sort_dir": {"asc"}}
	for flag, key := range map[string]string{"resource-type": "resource_types", "visibility": "visibility"} {
		if v := c.String(flag); v != "" {
			query.Set(key, v)
		}
	}
	s := sheet{columns: []string{"namespace", "display_name", "visibility", "protected", "owner"}}
	for n, err := range cl.Namespaces(c.Context, query) {
		if err != nil {
			return err
		}
		s.rows = append(s.rows, row(n, s.columns))
	}
	return p.show(c, s)
}

func (p *program) mdShow(c *cli.Context) error {
	name, err := one(c, "NAMESPACE")
	if err != nil {
		return err
	}
	cl, err := p.connect(c)
	if err != nil {
		return err
	}
	n, err := cl.Namespace(c.Context, name)
	if err != nil {
		return err
	}
	return p.show(c, upright(n, []string{"namespace", "display_name", "description", "visibility", "protected", "owner",
		"created_at", "updated_at", "resource_type_associations", "properties", "objects", "tags"}, "self", "schema"))
}

func (p *program) mdTypes(c *cli.Context) error {
	cl, err := p.connect(c)
	if err != nil {
		return err
	}
	types, err := cl.ResourceTypes(c.Context)
	if err != nil {
		return err
	}
	s := sheet{columns: []string{"name", "created_at"}}
	for _, t := range types {
		s.rows = append(s.rows, row(t, s.columns))
	}
	return p.show(c, s)
}

// mdImport makes a namespace of each file. One that fails does not keep the
// others.
func (p *program) mdImport(c *cli.Context) error {
	if c.NArg() == 0 {
		return usagef("md import takes at least one FILE or DIRECTORY")
	}
	cl, err := p.connect(c)
	if err != nil {
		return err
	}
	var files []string
	for _, name := range c.Args().Slice() {
		list, err := definitionFiles(name)
		if err != nil {
			return err
		}
		files = append(files, list...)
	}
	var errs []error
	for _, file := range files {
		said, err := p.importFile(c, cl, file)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", file, err))
			continue
		}
		fmt.Fprintln(p.out, said)
	}
	return errors.Join(errs...)
}

// definitionFiles returns a file, or those of a folder.
func definitionFiles(name string) ([]string, error) {
	info, err := os.Stat(name)
	if err != nil || !info.IsDir() {
		return []string{name}, err
	}
	list, err := filepath.Glob(filepath.Join(name, "*.json"))
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("%s has no files that end in .json", name)
	}
	slices.Sort(list)
	return list, err
}

// importFile makes the namespace of a file, and says what became of it.
func (p *program) importFile(c *cli.Context, cl *client.Client, file string) (string, error) {
	text, err := readDefinition(file)
	if err != nil {
		return "", err
	}
	var head struct {
		Namespace string `json:"namespace"`
	}
	if err := json.Unmarshal(text, &head); err != nil || head.Namespace == "" {
		return "", errors.New("this is no namespace of metadata definitions: a JSON object with \"namespace\" in it")
	}
	if _, err := cl.Namespace(c.Context, head.Namespace); err == nil {
		if !c.Bool("replace") {
			return head.Namespace + ": is there already", nil
		}
		if err := p.dropNamespace(c, cl, head.Namespace, true); err != nil {
			return "", err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	_, err = cl.CreateNamespace(c.Context, text)
	return head.Namespace + ": imported", err
}

func readDefinition(file string) (json.RawMessage, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > maxDefinition {
		return nil, fmt.Errorf("it has %d bytes, and %d are allowed", info.Size(), maxDefinition)
	}
	text, err := os.ReadFile(file)
	return definitionOf(text), err
}

// definitionOf leaves out what only a gateway says.
func definitionOf(text []byte) json.RawMessage {
	var fields map[string]json.RawMessage
	if json.Unmarshal(text, &fields) != nil {
		return text
	}
	for _, key := range []string{"self", "schema", "created_at", "updated_at"} {
		delete(fields, key)
	}
	for _, key := range []string{"objects", "resource_type_associations"} {
		var parts []map[string]json.RawMessage
		if json.Unmarshal(fields[key], &parts) != nil {
			continue
		}
		for _, part := range parts {
			for _, k := range []string{"self", "schema", "created_at", "updated_at"} {
				delete(part, k)
			}
			if strings.TrimSpace(string(part["required"])) == "[]" {
				delete(part, "required")
			}
		}
		if b, err := json.Marshal(parts); err == nil {
			fields[key] = b
		}
	}
	out, err := json.Marshal(fields)
	if err != nil {
		return text
	}
	return out
}

func (p *program) mdExport(c *cli.Context) error {
	name, err := one(c, "NAMESPACE")
	if err != nil {
		return err
	}
	cl, err := p.connect(c)
	if err != nil {
		return err
	}
	n, err := cl.Namespace(c.Context, name)
	if err != nil {
		return err
	}
	text, err := json.Marshal(n)
	if err != nil {
		return err
	}
	var fields any
	if err := json.Unmarshal(definitionOf(text), &fields); err != nil {
		return err
	}
	enc := json.NewEncoder(p.out)
	enc.SetIndent("", "    ")
	enc.SetEscapeHTML(false)
	return enc.Encode(fields)
}

func (p *program) mdDelete(c *cli.Context) error {
	return p.each(c, "NAMESPACE", func(cl *client.Client, name string) error {
		return p.dropNamespace(c, cl, name, c.Bool("force"))
	})
}

// dropNamespace deletes a namespace, a protected one after its protection.
func (p *program) dropNamespace(c *cli.Context, cl *client.Client, name string, force bool) error {
	if force {
		n, err := cl.Namespace(c.Context, name)
		if err != nil {
			return err
		}
		fields := map[string]any{"namespace": name, "protected": false}
		for _, key := range []string{"visibility", "owner", "display_name", "description"} {
			if v := n.Text(key); v != "" {
				fields[key] = v
			}
		}
		if _, err := cl.UpdateNamespace(c.Context, name, fields); err != nil {
			return err
		}
	}
	return cl.DeleteNamespace(c.Context, name)
}
