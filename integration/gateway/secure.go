package gateway

import (
	"path/filepath"
	"testing"

	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

// ServeTLS is what a gateway needs in its environment to take TLS beside plain
// TCP, with a certificate of ca, or TLS alone with mode "required". Any client
// may come.
func ServeTLS(t testing.TB, ca *nbdtest.Authority, mode string) []string {
	t.Helper()
	dir := ca.Folder(t, "server", nbdtest.Subject{Name: "gateway"})
	return []string{"PLATTER_NBD_TLS=" + mode,
		"PLATTER_NBD_TLS_CERT=" + filepath.Join(dir, "server-cert.pem"), "PLATTER_NBD_TLS_KEY=" + filepath.Join(dir, "server-key.pem")}
}
