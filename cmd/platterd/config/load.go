package config

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
)

// A Mistake is one thing that is wrong in a configuration.
type Mistake struct {
	File string // "" when it is not in a file
	Line int    // 0 when unknown
	Text string // what is wrong, and what to write instead
}

// Error returns "file:line: text".
func (m Mistake) Error() string {
	switch {
	case m.File == "":
		return m.Text
	case m.Line == 0:
		return m.File + ": " + m.Text
	}
	return fmt.Sprintf("%s:%d: %s", m.File, m.Line, m.Text)
}

// Sources are where a configuration comes from.
type Sources struct {
	File  string            // TOML file, or "" for none
	Env   []string          // "NAME=value", as os.Environ gives them
	Flags map[string]string // key path, such as "api.listen", to value: these win
}

// Load reads, overlays, completes and checks a configuration. The error joins
// every Mistake that it found, not the first only.
func Load(src Sources) (*Config, error) {
	l := loader{src: src, cfg: &Config{}}
	l.readFile()
	l.readEnv()
	l.readFlags()
	l.readSecrets(reflect.ValueOf(l.cfg).Elem())
	l.cfg.setDefaults()
	if len(l.mistakes) == 0 || l.parsed {
		l.validate()
	}
	if len(l.mistakes) > 0 {
		sort.SliceStable(l.mistakes, func(i, j int) bool { return l.mistakes[i].Line < l.mistakes[j].Line })
		errs := make([]error, len(l.mistakes))
		for i, m := range l.mistakes {
			errs[i] = m
		}
		return nil, errors.Join(errs...)
	}
	return l.cfg, nil
}

type loader struct {
	src      Sources
	cfg      *Config
	text     string // the file
	parsed   bool   // the file was TOML, so further checks make sense
	mistakes []Mistake
}

// wrong notes a mistake in the value at path, such as "api.listen".
func (l *loader) wrong(path, format string, args ...any) {
	m := Mistake{Text: fmt.Sprintf(format, args...)}
	if _, flag := l.src.Flags[path]; !flag && l.text != "" {
		if line := lineOf(l.text, path); line > 0 {
			m.File, m.Line = l.src.File, line
		}
	}
	if path != "" {
		m.Text = path + ": " + m.Text
	}
	l.mistakes = append(l.mistakes, m)
}

func (l *loader) readFile() {
	if l.src.File == "" {
		return
	}
	data, err := os.ReadFile(l.src.File)
	if err != nil {
		l.mistakes = append(l.mistakes, Mistake{Text: fmt.Sprintf("cannot read the configuration: %v", err)})
		return
	}
	l.text = string(data)
	tree := map[string]any{}
	if _, err := toml.Decode(l.text, &tree); err != nil {
		m := Mistake{File: l.src.File, Text: err.Error()}
		var pe toml.ParseError
		if errors.As(err, &pe) {
			m.Line, m.Text = pe.Position.Line, pe.Message
		}
		l.mistakes = append(l.mistakes, m)
		return
	}
	l.parsed = true
	l.fill(reflect.ValueOf(l.cfg).Elem(), tree, "")
}

// fill sets the fields of v from a TOML table, noting every mistake instead
// of stopping at the first.
func (l *loader) fill(v reflect.Value, tree map[string]any, prefix string) {
	for _, key := range sortedKeys(tree) {
		path := join(prefix, key)
		if v.Kind() == reflect.Map {
			l.fillStore(v, tree[key], key, path)
			continue
		}
		field, ok := fieldOf(v, key)
		if !ok {
			l.wrong(path, "unknown key%s", didYouMean(key, keysOf(v.Type())))
			continue
		}
		if sub, isTable := tree[key].(map[string]any); isTable && (field.Kind() == reflect.Struct || field.Kind() == reflect.Map) {
			l.fill(field, sub, path)
			continue
		}
		if isTables(field) {
			l.fillTables(field, tree[key], path)
			continue
		}
		if err := setTOML(field, tree[key]); err != nil {
			l.wrong(path, "%v", err)
		}
	}
}

// isTables tells whether a field is a list of tables.
func isTables(v reflect.Value) bool {
	return v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Struct
}

// fillTables appends what [[path]] tables say to the list v.
func (l *loader) fillTables(v reflect.Value, value any, path string) {
	tables, ok := value.([]map[string]any)
	if !ok {
		l.wrong(path, "this is a list of tables: write [[%s]] and the keys of each beneath", path)
		return
	}
	for i, tree := range tables {
		v.Set(reflect.Append(v, reflect.Zero(v.Type().Elem())))
		l.fill(v.Index(i), tree, entry(path, i+1))
	}
}

// fillStore adds one [stores.NAME] table to the map v.
func (l *loader) fillStore(v reflect.Value, tree any, name, path string) {
	sub, ok := tree.(map[string]any)
	if !ok {
		l.wrong(path, "a store is a table: write [%s] and its keys beneath", path)
		return
	}
	store := reflect.New(v.Type().Elem()).Elem()
	l.fill(store, sub, path)
	if v.IsNil() {
		v.Set(reflect.MakeMap(v.Type()))
	}
	v.SetMapIndex(reflect.ValueOf(name), store)
}

func (l *loader) readEnv() {
	for _, pair := range l.src.Env {
		name, value, _ := strings.Cut(pair, "=")
		words, ok := strings.CutPrefix(name, "PLATTER_")
		if !ok || slices.Contains(notOurs, name) {
			continue
		}
		path, ok := l.envPath(words)
		if !ok {
			l.wrong("", "the variable %s names no key of the configuration", name)
			continue
		}
		if err := l.set(path, value); err != nil {
			l.wrong("", "the variable %s: %v", name, err)
		}
	}
}

// notOurs are variables of platter, the command line, and of the tests.
var notOurs = []string{"PLATTER_URL", "PLATTER_CONFIG", "PLATTER_CACHE", "PLATTER_COMPLETE", "PLATTER_SOAK"}

// envPath finds the key path whose capitals, joined by '_', are words.
func (l *loader) envPath(words string) (string, bool) {
	for _, path := range l.paths() {
		if strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(path)) == words {
			return path, true
		}
	}
	return newStorePath(words)
}

// newStorePath reads STORES_NAME_KEY for a store that no file has.
func newStorePath(words string) (string, bool) {
	rest, ok := strings.CutPrefix(words, "STORES_")
	keys := keysOf(reflect.TypeFor[Store]())
	slices.SortFunc(keys, func(a, b string) int { return len(b) - len(a) }) // auth_url before url
	for _, key := range keys {
		if name, found := strings.CutSuffix(rest, "_"+strings.ToUpper(key)); ok && found && name != "" {
			return "stores." + strings.ToLower(name) + "." + key, true
		}
	}
	return "", false
}

func (l *loader) readFlags() {
	for _, path := range sortedKeys(l.src.Flags) {
		if err := l.set(path, l.src.Flags[path]); err != nil {
			l.wrong(path, "%v", err)
		}
	}
}

// set sets the value at a key path from its text.
func (l *loader) set(path, text string) error {
	v := reflect.ValueOf(l.cfg).Elem()
	parts := strings.Split(path, ".")
	for i, key := range parts {
		if v.Kind() == reflect.Map {
			store := reflect.New(v.Type().Elem()).Elem()
			if v.IsNil() {
				v.Set(reflect.MakeMap(v.Type()))
			} else if known := v.MapIndex(reflect.ValueOf(key)); known.IsValid() {
				store.Set(known)
			}
			field, _ := fieldOf(store, parts[i+1])
			if err := setText(field, text); err != nil {
				return err
			}
			v.SetMapIndex(reflect.ValueOf(key), store)
			return nil
		}
		field, ok := fieldOf(v, key)
		if !ok {
			return fmt.Errorf("no such key")
		}
		v = field
	}
	return setText(v, text)
}

// readSecrets fills every empty x that has an x_file.
func (l *loader) readSecrets(v reflect.Value) {
	t := v.Type()
	for i := range t.NumField() {
		switch f := v.Field(i); f.Kind() {
		case reflect.Struct:
			l.readSecrets(f)
		case reflect.Map:
			for _, name := range f.MapKeys() {
				store := reflect.New(f.Type().Elem()).Elem()
				store.Set(f.MapIndex(name))
				l.readSecrets(store)
				f.SetMapIndex(name, store)
			}
		case reflect.String:
			l.readSecret(v, t.Field(i).Tag.Get("toml"), f.String())
		}
	}
}

func (l *loader) readSecret(v reflect.Value, key, name string) {
	base, isFile := strings.CutSuffix(key, "_file")
	if !isFile || name == "" {
		return
	}
	secret, ok := fieldOf(v, base)
	if !ok {
		return
	}
	if secret.String() != "" {
		l.wrong(key, "both %s and %s are given: keep one", base, key)
		return
	}
	data, err := os.ReadFile(name)
	if err != nil {
		l.wrong(key, "cannot read the secret: %v", err)
		return
	}
	secret.SetString(strings.TrimRight(string(data), "\r\n"))
}

// paths returns every key path that can be set.
func (l *loader) paths() []string {
	var out []string
	t := reflect.TypeFor[Config]()
	for i := range t.NumField() {
		key := t.Field(i).Tag.Get("toml")
		switch ft := t.Field(i).Type; {
		case ft.Kind() == reflect.Struct:
			for _, k := range keysOf(ft) {
				out = append(out, key+"."+k)
			}
		case ft.Kind() == reflect.Map:
			for name := range l.cfg.Stores {
				for _, k := range keysOf(ft.Elem()) {
					out = append(out, key+"."+name+"."+k)
				}
			}
		default:
			out = append(out, key)
		}
	}
	return out
}

func fieldOf(v reflect.Value, key string) (reflect.Value, bool) {
	t := v.Type()
	for i := range t.NumField() {
		if t.Field(i).Tag.Get("toml") == key {
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}

func keysOf(t reflect.Type) []string {
	var keys []string
	for i := range t.NumField() {
		keys = append(keys, t.Field(i).Tag.Get("toml"))
	}
	return keys
}

// setTOML sets a field from a decoded TOML value by encoding it once more:
// the library then checks the type.
func setTOML(field reflect.Value, value any) error {
	var holder strings.Builder
	if err := toml.NewEncoder(&holder).Encode(map[string]any{"v": value}); err != nil {
		return err
	}
	target := reflect.New(reflect.StructOf([]reflect.StructField{{Name: "V", Type: field.Type(), Tag: `toml:"v"`}}))
	if _, err := toml.Decode(holder.String(), target.Interface()); err != nil {
		return fmt.Errorf("this must be %s%s", kindName(field), reason(err))
	}
	field.Set(target.Elem().Field(0))
	return nil
}

// reason keeps what our own types said of a value.
func reason(err error) string {
	text := err.Error()
	if !strings.Contains(text, "is no ") {
		return ""
	}
	if _, ours, ok := strings.Cut(text, `(last key "v"): `); ok {
		text = ours // the place is one in the holder
	}
	return ": " + strings.TrimPrefix(text, "toml: ")
}

func kindName(v reflect.Value) string {
	switch v.Interface().(type) {
	case Size:
		return "a size, such as \"50GiB\""
	case Duration:
		return "a span of time, such as \"30s\""
	case Mode:
		return "a mode of a file, such as \"0660\""
	case []string:
		return "a list of texts"
	case bool, *bool:
		return "true or false"
	case int:
		return "a whole number"
	case string:
		return "a text in quotes"
	}
	return "a table"
}

// setText sets a field from a flag or a variable.
func setText(field reflect.Value, text string) error {
	switch p := field.Addr().Interface().(type) {
	case *string:
		*p = text
	case *[]string:
		*p = strings.Split(text, ",")
	case *bool:
		return parseInto(p, strconv.ParseBool, text, field)
	case **bool:
		*p = new(bool)
		return parseInto(*p, strconv.ParseBool, text, field)
	case *int:
		return parseInto(p, strconv.Atoi, text, field)
	case interface{ UnmarshalText([]byte) error }:
		return p.UnmarshalText([]byte(text))
	default:
		return errors.New("this is a list of tables: write it in the file")
	}
	return nil
}

func parseInto[T any](p *T, parse func(string) (T, error), text string, field reflect.Value) error {
	v, err := parse(text)
	if err != nil {
		return fmt.Errorf("%q: this must be %s", text, kindName(field))
	}
	*p = v
	return nil
}

func join(prefix, key string) string {
	if prefix == "" {
		return key
	}
	return prefix + "." + key
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
