package spelling

import "testing"

func TestNearest(t *testing.T) {
	known := []string{"list", "listen", "mount"}
	for word, want := range map[string]string{
		"lissten": "listen", "lsit": "list", "mount": "mount", "munt": "mount", "": "", "nothing": "", "li": "list",
	} {
		if got := Nearest(word, known); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", word, got, want)
		}
	}
}
