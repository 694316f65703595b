package main

import (
	"fmt"
	"html/template"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/seed-478a8fee/platter/nbd"
)

// debugHandler serves what operators look at: metrics, profiles and the live
// NBD connections.
func debugHandler(reg *prometheus.Registry, conns func() []nbd.ConnInfo) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /debug/nbd", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		if err := connsPage.Execute(w, conns()); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "platterd: /metrics /debug/nbd /debug/pprof/")
	})
	return mux
}

var connsPage = template.Must(template.New("nbd").Funcs(template.FuncMap{
	"age": func(t time.Time) string { return time.Since(t).Round(time.Second).String() },
}).Parse(`<!doctype html><title>NBD connections</title><style>td,th{padding:0 1em;text-align:left}</style>
<h1>NBD connections</h1><table><tr><th>id<th>client<th>transport<th>peer<th>export<th>headers<th>writable<th>age<th>in flight<th>requests<th>read<th>written<th>errors</tr>
{{range .}}<tr><td>{{.Client.ID}}<td>{{.Client.Addr}}<td>{{.Client.Transport}}<td>{{.Peer}}<td>{{.Export}}<td>{{.Headers}}<td>{{.Writable}}<td>{{age .Since}}<td>{{.InFlight}}<td>{{.Requests}}<td>{{.Read}}<td>{{.Written}}<td>{{.Errors}}</tr>
{{else}}<tr><td>none</tr>{{end}}</table>
`))
