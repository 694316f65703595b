package config

import (
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Notifications says who is told of what happens to images: the listeners of a
// message broker, as those of Glance, and a webhook. With neither, nobody is.
//
//	[notifications]
//	brokers = ["10.0.0.1:5672", "10.0.0.2:5672"]
//	username = "platter"
//	password_file = "/etc/platter/rabbit.secret"
type Notifications struct {
	Brokers      []string `toml:"brokers"` // HOST:PORT, speaking AMQP 0.9.1; the first that answers is used
	VHost        string   `toml:"vhost"`   // default /
	Username     string   `toml:"username"`
	Password     string   `toml:"password"`
	PasswordFile string   `toml:"password_file"`
	Exchange     string   `toml:"exchange"` // default glance, which is what Glance's listeners expect
	Topics       []string `toml:"topics"`   // default notifications
	Durable      bool     `toml:"durable"`  // exchange and queues outlive the broker, if it does not have them yet
	TLS          bool     `toml:"tls"`      // to the brokers
	TLSCA        string   `toml:"tls_ca"`   // PEM file of the authorities of brokers and webhook; default: the system's
	TLSCert      string   `toml:"tls_cert"` // PEM file, for brokers that ask for one
	TLSKey       string   `toml:"tls_key"`

	Webhook           string `toml:"webhook"`        // http or https URL that each event is posted to
	WebhookSecret     string `toml:"webhook_secret"` // signs what is posted; default: nothing is signed
	WebhookSecretFile string `toml:"webhook_secret_file"`

	PublisherID string   `toml:"publisher_id"` // default image.localhost, as Glance's
	Disabled    []string `toml:"disabled"`     // events that nobody is told of, or groups: image, image.member, task, metadef_tag, …
	QueueEvents int      `toml:"queue_events"` // events that wait in memory for each of the two; default 10000
	QueueBytes  Size     `toml:"queue_bytes"`  // and their bytes; default 16MiB
	DrainWithin Duration `toml:"drain_within"` // how long a stop waits for events to go out; default 5s
}

// Any tells whether anybody is told.
func (n Notifications) Any() bool { return len(n.Brokers) > 0 || n.Webhook != "" }

func (n *Notifications) setDefaults() {
	for _, d := range []struct {
		field *string
		value string
	}{{&n.VHost, "/"}, {&n.Exchange, "glance"}, {&n.PublisherID, "image.localhost"}} {
		if *d.field == "" {
			*d.field = d.value
		}
	}
	if n.Topics == nil {
		n.Topics = []string{"notifications"}
	}
	number(&n.QueueEvents, 10_000)
	number(&n.QueueBytes, 16<<20)
	number(&n.DrainWithin, Duration(5*time.Second))
}

var (
	topicName = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,200}$`)
	eventName = regexp.MustCompile(`^(image|image\.member|task|metadef_(namespace|object|property|resource_type|tag))(\.[a-z_]+)?$`)
)

// validateNotifications notes the mistakes in [notifications].
func (l *loader) validateNotifications() {
	n, path := l.cfg.Notifications, "notifications."
	for _, b := range n.Brokers {
		if host, port, err := net.SplitHostPort(b); err != nil || host == "" || port == "" || strings.ContainsAny(b, "/@?#") {
			l.wrong(path+"brokers", "%q is no HOST:PORT; write for example \"10.0.0.1:5672\", and the user into username and password_file", b)
		}
	}
	if len(n.Brokers) > 0 && (n.Username == "" || n.Password == "") {
		l.wrong(path+"username", "a broker needs a user: give username, and password or password_file")
	}
	if len(n.Brokers) == 0 && (n.Username != "" || n.TLS) {
		l.wrong(path+"brokers", "username and tls are for brokers, and there are none: name them, or remove those keys")
	}
	if (n.TLSCert == "") != (n.TLSKey == "") {
		l.wrong(path+"tls_cert", "tls_cert and tls_key belong together: give both or neither")
	}
	if len(n.Topics) == 0 || slices.ContainsFunc(n.Topics, func(t string) bool { return !topicName.MatchString(t) }) {
		l.wrong(path+"topics", "a topic is letters, digits, '_', '-' and '.', at most 200; write for example [\"notifications\"]")
	}
	if !topicName.MatchString(n.Exchange) {
		l.wrong(path+"exchange", "%q is no name of letters, digits, '_', '-' and '.'", n.Exchange)
	}
	if u, err := url.Parse(n.Webhook); n.Webhook != "" && (err != nil || u.Host == "" || u.User != nil || u.Scheme != "http" && u.Scheme != "https") {
		l.wrong(path+"webhook", "it is no http or https URL without user and password; sign with webhook_secret_file instead")
	}
	if n.Webhook == "" && n.WebhookSecret != "" {
		l.wrong(path+"webhook_secret", "there is no webhook that it could sign for: give webhook, or remove it")
	}
	for _, d := range n.Disabled {
		if !eventName.MatchString(d) {
			l.wrong(path+"disabled", "%q is no event and no group of them; write for example \"image.send\" or \"task\"", d)
		}
	}
	if n.QueueEvents < 1 || n.QueueEvents > 1_000_000 {
		l.wrong(path+"queue_events", "%d is not between 1 and 1000000", n.QueueEvents)
	}
	if n.QueueBytes < 1<<20 || n.QueueBytes > 1<<30 {
		l.wrong(path+"queue_bytes", "it is not between 1MiB and 1GiB")
	}
	if n.DrainWithin < Duration(100*time.Millisecond) || n.DrainWithin > Duration(5*time.Minute) {
		l.wrong(path+"drain_within", "%s is not between 100ms and 5m", time.Duration(n.DrainWithin))
	}
}
