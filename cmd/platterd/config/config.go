// Package config is the configuration of platterd: a TOML file, overlaid by
// PLATTER_... variables of the environment, overlaid by flags.
//
// The zero configuration works: an embedded etcd and a file store in the data
// directory, no authentication, every listener on loopback. Unknown keys are
// errors. Each key KEY of section SECTION can come from the variable
// PLATTER_SECTION_KEY (in capitals), keys without a section from PLATTER_KEY,
// keys of a store NAME from PLATTER_STORES_NAME_KEY. Each secret x can be
// given as x_file, the name of a file that holds it. Lists of tables, such as
// [[nbd.clients]], come from the file alone.
package config

import (
	"net"
	"net/url"
	"path/filepath"
	"time"
)

// Off as a listener, socket or mount switches that door off.
const Off = "off"

// Keystone is the mode of [auth] that asks Keystone who is asking.
const Keystone = "keystone"

// A Config is the whole configuration. Load fills in the defaults that the
// comments name.
type Config struct {
	DataDir      string `toml:"data_dir"`      // default /var/lib/platter
	DefaultStore string `toml:"default_store"` // default: the only store, or "local"
	LogLevel     string `toml:"log_level"`     // debug, info (default), warn, error
	LogFormat    string `toml:"log_format"`    // text (default) or json

	API     API              `toml:"api"`
	NBD     NBD              `toml:"nbd"`
	FUSE    FUSE             `toml:"fuse"`
	Debug   Debug            `toml:"debug"`
	Catalog Catalog          `toml:"catalog"`
	Auth    Auth             `toml:"auth"`
	Policy  Policy           `toml:"policy"`
	Import  Import           `toml:"import"`
	CORS    CORS             `toml:"cors"`
	Cache   Cache            `toml:"cache"`
	Images  Images           `toml:"images"`
	Limits  Limits           `toml:"limits"`
	Stores  map[string]Store `toml:"stores"`

	Notifications Notifications `toml:"notifications"`
}

// API is the HTTP door.
type API struct {
	Listen         string   `toml:"listen"`          // default 127.0.0.1:9292
	PublicEndpoint string   `toml:"public_endpoint"` // default: from the request's host
	TLSCert        string   `toml:"tls_cert"`        // PEM file; with tls_key the door speaks HTTPS
	TLSKey         string   `toml:"tls_key"`         // PEM file
	AllowedHosts   []string `toml:"allowed_hosts"`   // further Host names taken with auth none
}

// NBD is the block device door. What it serves over the network is plain TCP
// with tls = "off", TLS only with "required", and what the client asks for with
// "optional". Outside loopback, plain TCP is refused unless allow_plain_tcp
// says that it may be. The socket never needs TLS: its mode and group say who
// may use it.
//
//	[nbd]
//	listen = "0.0.0.0:10809"
//	tls = "required"
//	tls_cert = "/etc/platter/nbd.crt"     # read again when it changes
//	tls_key = "/etc/platter/nbd.key"
//	tls_client_ca = "/etc/platter/ca.crt" # a client needs a certificate of this authority
//
//	[[nbd.clients]]
//	name = "hv-*.example.org"
//	exports = ["attach/*"]
//	mode = "rw"
type NBD struct {
	Listen          string   `toml:"listen"`           // default 127.0.0.1:10809
	PublicEndpoint  string   `toml:"public_endpoint"`  // HOST:PORT that clients elsewhere are told; default: listen, with the host of api.public_endpoint if it listens everywhere
	Socket          string   `toml:"socket"`           // default DATA/nbd.sock
	SocketGroup     string   `toml:"socket_group"`     // default: the daemon's own
	SocketMode      Mode     `toml:"socket_mode"`      // default "0660"
	AllowPlainTCP   bool     `toml:"allow_plain_tcp"`  // listen outside loopback without TLS
	TLS             string   `toml:"tls"`              // off (default), optional, required
	TLSMin          string   `toml:"tls_min"`          // oldest version taken: 1.2 (default), 1.3
	TLSCert         string   `toml:"tls_cert"`         // PEM file, the server's certificate and those that lead to its authority
	TLSKey          string   `toml:"tls_key"`          // PEM file
	TLSClientCA     string   `toml:"tls_client_ca"`    // PEM file; with it, TLS needs a client certificate of these authorities
	MaxConnections  int      `toml:"max_connections"`  // default 1024
	MaxPerClient    int      `toml:"max_per_client"`   // default 256
	MaxInFlight     Size     `toml:"max_in_flight"`    // memory of requests under way, all clients together; default 256MiB
	HandshakeWithin Duration `toml:"handshake_within"` // default 10s

	// Clients says what client certificates may open; a certificate may what
	// any rule that fits it allows. Without rules, each that was verified may
	// open everything. With rules, plain TCP opens nothing.
	Clients []NBDClient `toml:"clients"`
}

// An NBDClient is a rule for client certificates. In its patterns "*" stands
// for any number of characters, also for "/", and "?" for one.
type NBDClient struct {
	Name    string   `toml:"name"`    // fits the certificate's common name or one of its DNS names
	Exports []string `toml:"exports"` // fit names of exports, such as "attach/*"; "*" fits all
	Mode    string   `toml:"mode"`    // ro (default): may only read; rw
}

// FUSE is the file tree.
type FUSE struct {
	Mount      string `toml:"mount"`       // default DATA/mnt
	AllowOther bool   `toml:"allow_other"` // others than the daemon's user may look
	Project    string `toml:"project"`     // default: everything, for root only
}

// Debug is the listener for metrics and pprof.
type Debug struct {
	Listen string `toml:"listen"` // default 127.0.0.1:9293
}

// Catalog says which etcd keeps the records.
type Catalog struct {
	Etcd         []string `toml:"etcd"`   // endpoints; none (default): embedded, in DATA/etcd
	Prefix       string   `toml:"prefix"` // default /platter
	TLSCA        string   `toml:"tls_ca"`
	TLSCert      string   `toml:"tls_cert"`
	TLSKey       string   `toml:"tls_key"`
	Username     string   `toml:"username"`
	Password     string   `toml:"password"`
	PasswordFile string   `toml:"password_file"`
	Lease        Duration `toml:"lease"` // with etcd: how long a silent gateway keeps its overlays, default 15s
}

// Auth says who may come in. With mode keystone each request to the API needs a
// token, which Keystone is asked about; NBD then opens attach/TOKEN and nothing
// else. The gateway logs in to Keystone as a user of its own, who needs the
// role service (or admin) in the project:
//
//	[auth]
//	mode = "keystone"
//	auth_url = "https://keystone.example.org/v3"
//	username = "platter"
//	password_file = "/etc/platter/keystone.secret"
//	project_name = "service"
type Auth struct {
	Mode                 string `toml:"mode"`                  // none (default), keystone
	AllowUnauthenticated bool   `toml:"allow_unauthenticated"` // listen outside loopback with mode none

	// The rest is for mode keystone.
	AuthURL           string `toml:"auth_url"` // of Keystone, with or without /v3
	Username          string `toml:"username"`
	Password          string `toml:"password"`
	PasswordFile      string `toml:"password_file"`
	ProjectName       string `toml:"project_name"`
	UserDomainName    string `toml:"user_domain_name"`    // default Default
	ProjectDomainName string `toml:"project_domain_name"` // default Default
	PublicAuthURL     string `toml:"public_auth_url"`     // where clients without a token are sent; default: auth_url
	CAFile            string `toml:"ca_file"`             // PEM file of the authorities that Keystone's certificate may be of; default: the system's
	Insecure          bool   `toml:"insecure"`            // do not check Keystone's certificate: whoever is in between can be anybody

	AllowAnonymous bool     `toml:"allow_anonymous"` // without a token, what is public can be read
	CacheTime      Duration `toml:"cache_time"`      // how long a token that was valid is not asked about, so how long a revoked one goes on; default 10s
	CacheTokens    int      `toml:"cache_tokens"`    // tokens remembered; default 10000
	Timeout        Duration `toml:"timeout"`         // of one question to Keystone; default 10s
}

// Policy says who may do what.
type Policy struct {
	File     string `toml:"file"`      // YAML or JSON, in oslo.policy's language; none (default): Glance's defaults
	AnyScope bool   `toml:"any_scope"` // tokens for a domain or the system may use rules that are for projects

	PropertyProtectionFile   string `toml:"property_protection_file"`        // who may use which property of images, as Glance has it; none (default): everybody all
	PropertyProtectionFormat string `toml:"property_protection_rule_format"` // whether it names "roles" (default) or "policies"
}

// Cache is the local cache above far stores, and what is learned for it.
type Cache struct {
	Dir    string `toml:"dir"`    // default DATA/cache
	Size   Size   `toml:"size"`   // default 50GiB; "off" by dir = "off"
	Memory Size   `toml:"memory"` // for inflated clusters of compressed images; default 1/32 of the machine's, 128MiB to 1GiB
	Traces *bool  `toml:"traces"` // default true: what is read first at a boot is fetched ahead at the next one
}

// Images says what an upload may be.
type Images struct {
	RequireFormatMatch *bool    `toml:"require_format_match"` // default true: content must be what disk_format says
	Strict             bool     `toml:"strict"`               // also refuse raw uploads that look like another format
	DiskFormats        []string `toml:"disk_formats"`         // default: Glance's list
	ContainerFormats   []string `toml:"container_formats"`    // default: Glance's list
	HashAlgorithm      string   `toml:"hash_algorithm"`       // default sha512

	ShowDirectURL         bool `toml:"show_image_direct_url"`   // owners see where the first copy of the bytes is
	ShowMultipleLocations bool `toml:"show_multiple_locations"` // owners see where all copies are, and change that
	LocationQuota         int  `toml:"location_quota"`          // copies of one image, default 10
}

// CORS says which web pages may use the API from a browser.
type CORS struct {
	AllowedOrigin    []string `toml:"allowed_origin"`    // such as https://console.example.org; none by default
	AllowCredentials *bool    `toml:"allow_credentials"` // default true
	ExposeHeaders    []string `toml:"expose_headers"`    // default: Glance's
	AllowHeaders     []string `toml:"allow_headers"`     // default: Glance's
	AllowMethods     []string `toml:"allow_methods"`     // default GET, PUT, POST, DELETE, PATCH
	MaxAge           int      `toml:"max_age"`           // seconds, default 3600
}

// Import says how images are imported.
type Import struct {
	StagingDir    string `toml:"staging_dir"`    // for what clients stage, default DATA/staging
	StagingShared bool   `toml:"staging_shared"` // the folder is the same for all gateways
	SelfURL       string `toml:"self_url"`       // where other gateways reach this one; without it they cannot import what is staged here
	Parallel      int    `toml:"parallel"`       // imports that run at once, default 4

	// What web-download may fetch. Of each pair the first list that is not
	// empty decides.
	WebDownload    *bool `toml:"web_download"`    // default true
	GlanceDownload bool  `toml:"glance_download"` // images of other image services that Keystone knows, too

	GlanceDownloadProperties []string `toml:"glance_download_properties"` // beginnings of names of properties that come along; default: Glance's

	AllowedSchemes    []string `toml:"allowed_schemes"`    // default http, https
	DisallowedSchemes []string `toml:"disallowed_schemes"` // instead
	AllowedHosts      []string `toml:"allowed_hosts"`      // default: all on the public Internet; what is named here may be private
	DisallowedHosts   []string `toml:"disallowed_hosts"`   // instead
	AllowedPorts      []string `toml:"allowed_ports"`      // default 80, 443
	DisallowedPorts   []string `toml:"disallowed_ports"`   // instead
}

// Limits bounds what users can ask for. Negative counts mean no limit.
type Limits struct {
	ImageSize      Size     `toml:"image_size"`      // of one upload, default 1TiB
	Members        int      `toml:"members"`         // per image, default 128
	Properties     int      `toml:"properties"`      // per image, default 128
	Tags           int      `toml:"tags"`            // per image, default 128
	OverlaySize    Size     `toml:"overlay_size"`    // virtual, of one overlay, default 64TiB
	OverlayBytes   Size     `toml:"overlay_bytes"`   // stored, of one overlay, default: its virtual size
	JournalBytes   Size     `toml:"journal_bytes"`   // not yet in the store, of one object-log overlay, default 1GiB
	JournalFull    string   `toml:"journal_full"`    // what a write does then: wait (default) or fail
	EphemeralBytes Size     `toml:"ephemeral_bytes"` // stored, of one ephemeral disk, default 16GiB
	Reserve        Size     `toml:"reserve"`         // kept free on the data directory's disk for the catalog, default 512MiB
	OrphanGrace    Duration `toml:"orphan_grace"`    // age after which bytes that no record names are freed, default 1h
	TaskLife       Duration `toml:"task_life"`       // how long a finished task is kept, default 48h
	AttachUnused   Duration `toml:"attach_unused"`   // an attachment never used expires after this, default 1h
	StopWithin     Duration `toml:"stop_within"`     // how long a stop waits for requests in flight, default 30s
	HandoverGrace  Duration `toml:"handover_grace"`  // how long a hand-over to a new process waits for downloads and uploads, default 1s
	HandoverWithin Duration `toml:"handover_within"` // how long the new process may take to open everything, default 20s
}

// A Store is a place for image bytes. Type decides which other keys apply.
type Store struct {
	Type        string `toml:"type"` // file, rbd, s3, swift, http
	Description string `toml:"description"`
	Weight      int    `toml:"weight"`
	Overlay     string `toml:"overlay"`    // file, rbd (default of rbd), object-log (default of s3 and swift)
	Durability  string `toml:"durability"` // object-log: gateway (default) or store

	Parallel  int      `toml:"parallel"`  // requests at once; default 32, for swift 8
	Bandwidth Size     `toml:"bandwidth"` // bytes a second, each way; default: no limit
	Timeout   Duration `toml:"timeout"`   // how long a read is tried again; default 30s

	Dir    string `toml:"dir"`    // file: folder, relative to the data directory
	Shared bool   `toml:"shared"` // file: others keep files there, too; none is freed that was not an image's here, and platter migrate --adopt may take them

	Pool    string `toml:"pool"`    // rbd
	Conf    string `toml:"conf"`    // rbd: default /etc/ceph/ceph.conf
	User    string `toml:"user"`    // rbd: without "client."; swift: user name
	Keyring string `toml:"keyring"` // rbd: file; default: where conf says
	Trash   bool   `toml:"trash"`   // rbd: an image that has clones may be deleted, and waits in the trash for them

	Endpoint      string `toml:"endpoint"` // s3: http:// or https://; http: folder that keys are below
	Bucket        string `toml:"bucket"`
	AccessKey     string `toml:"access_key"`
	SecretKey     string `toml:"secret_key"`
	SecretKeyFile string `toml:"secret_key_file"`
	Region        string `toml:"region"`
	Layout        string `toml:"layout"` // plain (default): as Glance's own drivers; chunked is not built yet
	CAFile        string `toml:"ca_file"`
	Prefix        string `toml:"prefix"` // s3, swift: begins the name of every object

	AuthURL         string `toml:"auth_url"`     // swift
	AuthVersion     int    `toml:"auth_version"` // swift: 1, 2 or 3 (default)
	Key             string `toml:"key"`
	KeyFile         string `toml:"key_file"`
	Project         string `toml:"project"`
	UserDomain      string `toml:"user_domain"`
	ProjectDomain   string `toml:"project_domain"`
	Container       string `toml:"container"`
	CreateContainer bool   `toml:"create_container"`
	SegmentSize     Size   `toml:"segment_size"` // swift: objects larger than this are stored in parts; default 200MiB

	Allow        []string `toml:"allow"`         // http: HOST or HOST:PORT that may be asked besides endpoint; "*" is all, and the default without endpoint
	AllowPrivate bool     `toml:"allow_private"` // http: also hosts at private and loopback addresses
	SpoolSize    Size     `toml:"spool_size"`    // http: largest object of a server without ranges; default 16GiB
}

// Engine returns how overlays are kept in a store.
func (s Store) Engine() string {
	if s.Overlay != "" {
		return s.Overlay
	}
	switch s.Type {
	case "rbd":
		return "rbd"
	case "s3", "swift":
		return "object-log"
	}
	return "file"
}

// Far tells whether a store is reached through a network, so that it is worth
// a cache.
func (s Store) Far() bool { return s.Type != "file" }

// setDefaults fills in what the user left out.
func (c *Config) setDefaults() {
	text := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	text(&c.DataDir, "/var/lib/platter")
	text(&c.LogLevel, "info")
	text(&c.LogFormat, "text")
	text(&c.API.Listen, "127.0.0.1:9292")
	text(&c.NBD.Listen, "127.0.0.1:10809")
	text(&c.NBD.Socket, filepath.Join(c.DataDir, "nbd.sock"))
	text(&c.NBD.TLS, Off)
	text(&c.NBD.TLSMin, "1.2")
	for i := range c.NBD.Clients {
		text(&c.NBD.Clients[i].Mode, "ro")
	}
	text(&c.FUSE.Mount, filepath.Join(c.DataDir, "mnt"))
	text(&c.Debug.Listen, "127.0.0.1:9293")
	text(&c.Catalog.Prefix, "/platter")
	text(&c.Auth.Mode, "none")
	text(&c.Auth.UserDomainName, "Default")
	text(&c.Auth.ProjectDomainName, "Default")
	text(&c.Auth.PublicAuthURL, c.Auth.AuthURL)
	number(&c.Auth.CacheTime, Duration(10*time.Second))
	number(&c.Auth.CacheTokens, 10_000)
	number(&c.Auth.Timeout, Duration(10*time.Second))
	text(&c.Images.HashAlgorithm, "sha512")
	text(&c.Policy.PropertyProtectionFormat, "roles")
	if len(c.Stores) == 0 {
		c.Stores = map[string]Store{"local": {Type: "file", Dir: "images"}}
	}
	if c.DefaultStore == "" {
		c.DefaultStore = "local"
		if len(c.Stores) == 1 {
			for name := range c.Stores {
				c.DefaultStore = name
			}
		}
	}
	for name, s := range c.Stores {
		s.setDefaults()
		c.Stores[name] = s
	}
	text(&c.Import.StagingDir, filepath.Join(c.DataDir, "staging"))
	number(&c.Import.Parallel, 4)
	if c.Import.WebDownload == nil {
		yes := true
		c.Import.WebDownload = &yes
	}
	text(&c.Cache.Dir, filepath.Join(c.DataDir, "cache"))
	number(&c.Cache.Size, 50<<30)
	if c.Cache.Traces == nil {
		yes := true
		c.Cache.Traces = &yes
	}
	c.Limits.setDefaults()
	c.Notifications.setDefaults()
	number(&c.Catalog.Lease, Duration(15*time.Second))
	number(&c.NBD.MaxConnections, 1024)
	number(&c.NBD.MaxPerClient, 256)
	number(&c.NBD.SocketMode, 0o660)
	number(&c.NBD.MaxInFlight, 256<<20)
	number(&c.NBD.HandshakeWithin, Duration(10*time.Second))
	if c.Images.RequireFormatMatch == nil {
		yes := true
		c.Images.RequireFormatMatch = &yes
	}
}

func (s *Store) setDefaults() {
	if !s.Far() {
		return
	}
	number(&s.Timeout, Duration(30*time.Second))
	switch s.Type {
	case "swift":
		number(&s.Parallel, 8)
		number(&s.AuthVersion, 3)
		number(&s.SegmentSize, 200<<20)
	case "rbd":
		number(&s.Parallel, 64)
	case "http":
		number(&s.SpoolSize, 16<<30)
	}
	number(&s.Parallel, 32)
}

func (l *Limits) setDefaults() {
	number(&l.ImageSize, 1<<40)
	number(&l.Members, 128)
	number(&l.Properties, 128)
	number(&l.Tags, 128)
	number(&l.OverlaySize, 64<<40)
	number(&l.JournalBytes, 1<<30)
	if l.JournalFull == "" {
		l.JournalFull = "wait"
	}
	number(&l.EphemeralBytes, 16<<30)
	number(&l.Reserve, 512<<20)
	number(&l.OrphanGrace, Duration(time.Hour))
	number(&l.TaskLife, Duration(48*time.Hour))
	number(&l.AttachUnused, Duration(time.Hour))
	number(&l.StopWithin, Duration(30*time.Second))
	number(&l.HandoverGrace, Duration(time.Second))
	number(&l.HandoverWithin, Duration(20*time.Second))
}

func number[T ~int | ~int64 | ~uint32](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}

// StoreDir returns the folder of a file store.
func (c *Config) StoreDir(s Store) string {
	if filepath.IsAbs(s.Dir) {
		return s.Dir
	}
	return filepath.Join(c.DataDir, s.Dir)
}

// NBDEndpoint returns the HOST:PORT at which clients on other machines reach
// NBD, or "" if they cannot.
func (c *Config) NBDEndpoint() string {
	if c.NBD.PublicEndpoint != "" || c.NBD.Listen == Off {
		return c.NBD.PublicEndpoint
	}
	host, port, err := net.SplitHostPort(c.NBD.Listen)
	if err != nil {
		return c.NBD.Listen
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		if u, err := url.Parse(c.API.PublicEndpoint); err == nil && u.Hostname() != "" {
			return net.JoinHostPort(u.Hostname(), port)
		}
	}
	return c.NBD.Listen
}
