package config

import (
	"strings"
	"testing"
	"time"
)

func TestNotifications(t *testing.T) {
	secret := write(t, "secret", "p\n")
	whole := "[notifications]\nbrokers = [\"mq1:5672\", \"[::1]:5672\"]\nusername = \"platter\"\npassword_file = \"" + secret + "\"\n"
	c, err := Load(Sources{File: write(t, "whole", whole)})
	if err != nil {
		t.Fatal(err)
	}
	n := c.Notifications
	if !n.Any() || n.Password != "p" || n.VHost != "/" || n.Exchange != "glance" || n.PublisherID != "image.localhost" || len(n.Topics) != 1 ||
		n.Topics[0] != "notifications" || n.QueueEvents != 10_000 || n.QueueBytes != 16<<20 || n.DrainWithin != Duration(5*time.Second) {
		t.Errorf("defaults: %+v", n)
	}
	const hook = "[notifications]\nwebhook = \"https://example.org/hook\"\n"
	for name, mistake := range map[string]struct{ text, want string }{
		"no port":     {strings.Replace(whole, "mq1:5672", "mq1", 1), "no HOST:PORT"},
		"URL":         {strings.Replace(whole, "mq1:5672", "rabbit://u:p@mq1:5672", 1), "no HOST:PORT"},
		"nobody":      {strings.Replace(whole, "username = \"platter\"\n", "", 1), "a broker needs a user"},
		"no broker":   {"[notifications]\nusername = \"u\"\npassword = \"p\"\n", "there are none"},
		"half a pair": {whole + "tls_cert = \"/c\"\n", "belong together"},
		"topic":       {whole + "topics = [\"a b\"]\n", "a topic is"},
		"no topic":    {whole + "topics = []\n", "a topic is"},
		"exchange":    {whole + "exchange = \"a b\"\n", "no name of letters"},
		"event":       {whole + "disabled = [\"image.sent.\"]\n", "no event and no group"},
		"no queue":    {whole + "queue_events = -1\n", "queue_events"},
		"small queue": {whole + "queue_bytes = \"1KiB\"\n", "queue_bytes"},
		"for ever":    {whole + "drain_within = \"1h\"\n", "drain_within"},
		"hook":        {strings.Replace(hook, "https://", "https://u:p@", 1), "webhook_secret_file"},
		"unsigned":    {"[notifications]\nwebhook_secret = \"s\"\n", "no webhook"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Load(Sources{File: write(t, "mistake", mistake.text)})
			if err == nil || !strings.Contains(err.Error(), mistake.want) {
				t.Errorf("%v, want %q", err, mistake.want)
			}
		})
	}
	for _, good := range []string{hook + "disabled = [\"image.send\", \"image.member\", \"metadef_tag\", \"task.success\"]\n", hook + "webhook_secret = \"s\"\n"} {
		if _, err := Load(Sources{File: write(t, "good", good)}); err != nil {
			t.Errorf("%v\n%s", err, good)
		}
	}
}

// TestShared: only of files it must be said that others have some there, too.
func TestShared(t *testing.T) {
	const file = "[stores.old]\ntype = \"file\"\ndir = \"/var/lib/glance/images\"\nshared = true\n"
	c, err := Load(Sources{File: write(t, "file", file)})
	if err != nil || !c.Stores["old"].Shared {
		t.Errorf("%v", err)
	}
	_, err = Load(Sources{File: write(t, "far", strings.Replace(file, "\"file\"", "\"http\"", 1))})
	if err == nil || !strings.Contains(err.Error(), "others are always shared") {
		t.Errorf("%v", err)
	}
}
