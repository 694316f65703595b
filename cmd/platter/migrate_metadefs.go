package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net/url"

	"github.com/seed-478a8fee/platter/cmd/platter/client"
)

// definitions takes over the namespaces of metadata definitions that are not
// here yet, each with all that is in it. Their times are not kept: they say
// when a definition came to a service.
func (m *mover) definitions(ctx context.Context) (rows []client.Record, results []moved, err error) {
	query := url.Values{"sort_key": {"namespace"}, "sort_dir": {"asc"}}
	for n, err := range m.from.Namespaces(ctx, query) {
		if err != nil {
			return rows, results, err
		}
		name := n.Text("namespace")
		rows = append(rows, client.Record{"id": name, "name": n.Text("display_name"), "status": "definitions"})
		results = append(results, m.namespace(ctx, name))
	}
	return rows, results, nil
}

func (m *mover) namespace(ctx context.Context, name string) moved {
	_, err := m.to.Namespace(ctx, name)
	switch {
	case err == nil:
		return moved{result: movedHere}
	case !errors.Is(err, fs.ErrNotExist):
		return moved{result: movedFailed, err: err}
	case m.dry:
		return moved{result: movedWould}
	}
	n, err := m.from.Namespace(ctx, name)
	if err != nil {
		return moved{result: movedFailed, err: err}
	}
	text, err := json.Marshal(n)
	if err == nil {
		_, err = m.to.CreateNamespace(ctx, definitionOf(text))
	}
	if err != nil {
		return moved{result: movedFailed, err: err}
	}
	return moved{result: movedCopied}
}
