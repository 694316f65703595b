package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
)

func (s sheet) yaml(w io.Writer) error {
	var b strings.Builder
	switch list := s.objects(); {
	case s.single:
		yamlObject(&b, list[0], "")
	case len(list) == 0:
		b.WriteString("[]\n")
	default:
		for _, o := range list {
			b.WriteString("- " + strings.TrimPrefix(yamlIndented(o), "  "))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func yamlIndented(o object) string {
	var b strings.Builder
	yamlObject(&b, o, "  ")
	return b.String()
}

func yamlObject(b *strings.Builder, o object, indent string) {
	for _, f := range o {
		b.WriteString(indent + yamlText(f.name) + ":")
		yamlValue(b, f.value, indent)
	}
}

// yamlValue writes what stands behind a colon or a dash.
func yamlValue(b *strings.Builder, v any, indent string) {
	switch v := v.(type) {
	case nil:
		b.WriteString(" null\n")
	case string:
		b.WriteString(" " + yamlText(v) + "\n")
	case []string:
		list := make([]any, 0, len(v))
		for _, s := range v {
			list = append(list, s)
		}
		yamlValue(b, list, indent)
	case []any:
		if len(v) == 0 {
			b.WriteString(" []\n")
			return
		}
		b.WriteByte('\n')
		for _, e := range v {
			if m, ok := e.(map[string]any); ok && len(m) > 0 {
				var inner strings.Builder
				yamlMap(&inner, m, indent+"  ")
				b.WriteString(indent + "- " + strings.TrimPrefix(inner.String(), indent+"  "))
				continue
			}
			b.WriteString(indent + "-")
			yamlValue(b, e, indent+"  ")
		}
	case map[string]any:
		if len(v) == 0 {
			b.WriteString(" {}\n")
			return
		}
		b.WriteByte('\n')
		yamlMap(b, v, indent+"  ")
	default:
		fmt.Fprintf(b, " %v\n", v)
	}
}

func yamlMap(b *strings.Builder, m map[string]any, indent string) {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		b.WriteString(indent + yamlText(k) + ":")
		yamlValue(b, m[k], indent)
	}
}

// yamlText quotes a text wherever a reader could take it for something else.
func yamlText(s string) string {
	if regexp.MustCompile(`^[A-Za-z_/][A-Za-z0-9_./ -]*[A-Za-z0-9_./-]$|^[a-z_]$`).MatchString(s) &&
		!slices.Contains([]string{"null", "true", "false", "yes", "no", "on", "off", "y", "n"}, strings.ToLower(s)) {
		return s
	}
	out, err := json.Marshal(s) // a JSON string is a YAML string
	if err != nil {
		return `""`
	}
	return string(out)
}
