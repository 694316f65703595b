package config

import (
	"cmp"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDefaults(t *testing.T) {
	c, err := Load(Sources{})
	if err != nil {
		t.Fatal(err)
	}
	if c.API.Listen != "127.0.0.1:9292" || c.NBD.Socket != "/var/lib/platter/nbd.sock" || c.FUSE.Mount != "/var/lib/platter/mnt" {
		t.Errorf("doors: %+v %+v %+v", c.API, c.NBD, c.FUSE)
	}
	if c.DefaultStore != "local" || c.StoreDir(c.Stores["local"]) != "/var/lib/platter/images" {
		t.Errorf("stores: %q %+v", c.DefaultStore, c.Stores)
	}
	if !*c.Images.RequireFormatMatch || c.Limits.ImageSize != 1<<40 {
		t.Errorf("images: %+v limits: %+v", c.Images, c.Limits)
	}
}

func TestLayers(t *testing.T) {
	secret := write(t, "secret", "hush\n")
	file := write(t, "platter.toml", `
data_dir = "/srv/one"
[api]
listen = "127.0.0.1:1"
[limits]
image_size = "2 GiB"
attach_unused = "90s"
reserve = 4096
[images]
require_format_match = false
[catalog]
etcd = ["http://10.0.0.1:2379"]
password_file = "`+secret+`"
[stores.fast]
type = "file"
dir = "/fast"
`)
	c, err := Load(Sources{
		File:  file,
		Env:   []string{"PLATTER_API_LISTEN=127.0.0.1:2", "PLATTER_NBD_LISTEN=127.0.0.1:3", "PLATTER_STORES_FAST_DIR=/faster", "PLATTER_URL=x", "HOME=/"},
		Flags: map[string]string{"nbd.listen": "127.0.0.1:4", "catalog.etcd": "http://a:1,http://b:2"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.DataDir != "/srv/one" || c.API.Listen != "127.0.0.1:2" || c.NBD.Listen != "127.0.0.1:4" {
		t.Errorf("file < environment < flag: %q %q %q", c.DataDir, c.API.Listen, c.NBD.Listen)
	}
	if c.Limits.ImageSize != 2<<30 || c.Limits.AttachUnused != Duration(90*time.Second) || c.Limits.Reserve != 4096 {
		t.Errorf("units: %+v", c.Limits)
	}
	if *c.Images.RequireFormatMatch || c.Catalog.Password != "hush" || len(c.Catalog.Etcd) != 2 {
		t.Errorf("images %+v catalog %+v", c.Images, c.Catalog)
	}
	if c.DefaultStore != "fast" || c.Stores["fast"].Dir != "/faster" {
		t.Errorf("store: %q %+v", c.DefaultStore, c.Stores)
	}
}

func TestEveryMistakeAtOnce(t *testing.T) {
	file := write(t, "platter.toml", `data_dir = "relative"
log_levle = "info"

[api]
listen = "0.0.0.0:9292"
tls_cert = "x"

[nbd]
listen = 10809
tls = "required"

[stores.fast]
type = "rbd"

[stores.slow]
type = "tape"
pool = 7

[limits]
image_size = "many"
`)
	_, err := Load(Sources{File: file})
	if err == nil {
		t.Fatal("no mistake found")
	}
	text := strings.ReplaceAll(err.Error(), file, "F")
	for _, want := range []string{
		`F:1: data_dir: "relative" is not an absolute path`,
		`F:2: log_levle: unknown key; did you mean log_level?`,
		`F:5: api.listen: 0.0.0.0:9292 is not loopback`,
		`F:6: api.tls_cert: tls_cert and tls_key belong together`,
		`F:9: nbd.listen: this must be a text in quotes`,
		`F:8: nbd.tls_cert: with nbd.tls = "required" the server needs a certificate`,
		`F:8: nbd.tls_key: with nbd.tls = "required" the server needs its certificate's key`,
		`F:12: stores.fast.pool: a store of type rbd needs pool`,
		`F:16: stores.slow.type: "tape" is none of`,
		`F:17: stores.slow.pool: this must be a text in quotes`,
		`F:20: limits.image_size: this must be a size`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("missing: %s\ngot:\n%s", want, text)
		}
	}
}

func TestRefused(t *testing.T) {
	for name, c := range map[string]struct {
		src  Sources
		want string
	}{
		"no file":        {Sources{File: "/nonexistent.toml"}, "cannot read the configuration"},
		"no TOML":        {Sources{File: write(t, "x", "a = = 1")}, "x:1:"},
		"flag":           {Sources{Flags: map[string]string{"api.listen": "nowhere"}}, `api.listen: "nowhere" is no HOST:PORT`},
		"variable":       {Sources{Env: []string{"PLATTER_APY_LISTEN=x"}}, "PLATTER_APY_LISTEN names no key"},
		"variable value": {Sources{Env: []string{"PLATTER_FUSE_ALLOW_OTHER=perhaps"}}, "this must be true or false"},
		"secret twice":   {Sources{File: write(t, "y", "[auth]\npassword=\"a\"\npassword_file=\"b\"")}, "keep one"},
		"keystone":       {Sources{Flags: map[string]string{"auth.mode": "keystone"}}, "auth.username: auth mode keystone needs the user"},
		"auth_url alone": {Sources{File: write(t, "k", "[auth]\nauth_url = \"http://k:5000\"")}, "k:2: auth.auth_url: auth mode none asks no Keystone"},
		"list":           {Sources{Env: []string{"PLATTER_NBD_CLIENTS=hv"}}, "write it in the file"},
		"plain nbd":      {Sources{Flags: map[string]string{"nbd.listen": "[::]:10809"}}, "nbd.allow_plain_tcp = true"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Load(c.src)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
}

func TestStoreFromTheEnvironmentAlone(t *testing.T) {
	c, err := Load(Sources{Env: []string{"PLATTER_STORES_BIG_TYPE=file", "PLATTER_STORES_BIG_DIR=/big"}})
	if err != nil || c.DefaultStore != "big" || c.Stores["big"].Dir != "/big" {
		t.Errorf("got %+v, %v", c, err)
	}
}

func TestFarStores(t *testing.T) {
	for name, c := range map[string]struct{ text, want, first string }{
		"s3":                  {text: "type = \"s3\"\nendpoint = \"https://s3\"\nbucket = \"b\"", want: ""},
		"log in the gateway":  {text: "type = \"s3\"\nendpoint = \"https://s3\"\nbucket = \"b\"\ndurability = \"store\"", want: ""},
		"no bucket":           {text: "type = \"s3\"\nendpoint = \"https://s3\"", want: "stores.x.bucket: a store of type s3 needs bucket"},
		"no URL":              {text: "type = \"s3\"\nendpoint = \"s3\"\nbucket = \"b\"", want: "is no http or https URL"},
		"half a key":          {text: "type = \"s3\"\nendpoint = \"https://s3\"\nbucket = \"b\"\naccess_key = \"a\"", want: "belong together"},
		"clones in s3":        {text: "type = \"s3\"\nendpoint = \"https://s3\"\nbucket = \"b\"\noverlay = \"rbd\"", want: "use object-log or file"},
		"durability of rbd":   {text: "type = \"rbd\"\npool = \"p\"\ndurability = \"store\"", want: "durability applies to the engine object-log"},
		"no such durability":  {text: "type = \"s3\"\nendpoint = \"https://s3\"\nbucket = \"b\"\ndurability = \"some\"", want: "is none of gateway, store"},
		"chunked":             {text: "type = \"s3\"\nendpoint = \"https://s3\"\nbucket = \"b\"\nlayout = \"chunked\"", want: "not built yet"},
		"swift":               {text: "type = \"swift\"\nauth_url = \"http://k/v3\"\nuser = \"u\"\nkey = \"k\"\ncontainer = \"c\"", want: ""},
		"swift of the future": {text: "type = \"swift\"\nauth_url = \"http://k/v3\"\nuser = \"u\"\nkey = \"k\"\ncontainer = \"c\"\nauth_version = 4", want: "4 is none of 1, 2, 3"},
		"http":                {text: "type = \"http\"\nendpoint = \"https://mirror\"\n[stores.y]\ntype = \"file\"\ndir = \"d\"\n", want: "", first: "y"},
		"only http":           {text: "type = \"http\"", want: "takes no uploads"},
		"no such engine":      {text: "type = \"http\"\nendpoint = \"https://mirror\"\noverlay = \"tape\"", want: "is none of file, rbd, object-log"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, err := Load(Sources{File: write(t, "x.toml", "[stores.x]\n"+c.text+"\n"), Flags: map[string]string{"default_store": cmp.Or(c.first, "x")}})
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Fatalf("got %v, want %q in it", err, c.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if s := cfg.Stores["x"]; !s.Far() || s.Parallel == 0 || s.Timeout == 0 || cfg.Cache.Size == 0 {
				t.Errorf("defaults: %+v %+v", s, cfg.Cache)
			}
		})
	}
}

func TestSaidInSoManyWords(t *testing.T) {
	_, err := Load(Sources{
		Flags: map[string]string{"api.listen": "0.0.0.0:9292", "nbd.listen": "0.0.0.0:10809"},
		Env:   []string{"PLATTER_AUTH_ALLOW_UNAUTHENTICATED=true", "PLATTER_NBD_ALLOW_PLAIN_TCP=true"},
	})
	if err != nil {
		t.Error(err)
	}
}
