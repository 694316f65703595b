//go:build integration

package differ

import "testing"

// TestMetadefs is TestGlance for metadata definitions.
func TestMetadefs(t *testing.T) {
	w := newWorld(t, "")
	if pairs := w.judge(t, readConversations(t, "testdata/metadefs/*.txt"), knownMetadefs); pairs < 200 {
		t.Errorf("%d pairs of requests are not enough", pairs)
	}
}

var knownMetadefs = []*reason{
	{part: `^header X-Openstack-Request-Id: - → present`, why: "every answer has one"},
	{part: `^status: 500 → 400`, why: "Glance fails over these"},
	{step: `/objects\?.*(limit|marker)=`, part: `^body.objects`, why: "Glance reads these and forgets them"},
	{step: `/objects\?marker=nonsense`, part: `^status: 200 → 404`, why: "Glance reads it and forgets it"},
	{step: `DELETE `, part: `^header Content-Type: text/html; charset=UTF-8 → -`, why: "an answer without a body has no type"},
}
