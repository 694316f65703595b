package catalog

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

type garbageRecord struct {
	V         int       `json:"v"`
	Store     string    `json:"store"`
	Key       string    `json:"key,omitempty"`
	Since     time.Time `json:"since"`
	NotBefore time.Time `json:"not_before,omitzero"`
	Keys      []string  `json:"keys,omitempty"` // several, instead of Key
}

func (g Garbage) record() garbageRecord {
	return garbageRecord{version(!g.NotBefore.IsZero()), g.Store, g.Key, g.Since, g.NotBefore, nil}
}

// decodeGarbage returns one entry for each object of a record.
func decodeGarbage(p Pair) ([]Garbage, error) {
	var r garbageRecord
	if err := decode(p, &r, &r.V); err != nil {
		return nil, err
	}
	g := Garbage{strings.TrimPrefix(p.Key, preGarbage), r.Store, r.Key, moment(r.Since), moment(r.NotBefore)}
	if len(r.Keys) == 0 {
		return []Garbage{g}, nil
	}
	list := make([]Garbage, len(r.Keys))
	for i, key := range r.Keys {
		list[i] = g
		list[i].Key = key
	}
	return list, nil
}

type gatewayRecord struct {
	V       int       `json:"v"`
	Address string    `json:"address,omitempty"`
	Since   time.Time `json:"since"`
}

func (g Gateway) record() gatewayRecord { return gatewayRecord{recordVersion, g.Address, g.Since} }

func decodeGateway(p Pair) (Gateway, error) {
	var r gatewayRecord
	if err := decode(p, &r, &r.V); err != nil {
		return Gateway{}, err
	}
	return Gateway{strings.TrimPrefix(p.Key, preGateway), r.Address, moment(r.Since), p.Revision}, nil
}

type headRecord struct {
	V        int    `json:"v"`
	Epoch    int64  `json:"epoch"`
	Sequence int64  `json:"sequence"`
	Dirty    bool   `json:"dirty,omitempty"`
	Data     []byte `json:"data,omitempty"`
}

func (h OverlayHead) record() headRecord {
	return headRecord{recordVersion, h.Epoch, h.Sequence, h.Dirty, h.Data}
}

func decodeHead(p Pair) (OverlayHead, error) {
	var r headRecord
	if err := decodeAll(p, &r, &r.V); err != nil {
		return OverlayHead{}, err
	}
	return OverlayHead{r.Epoch, r.Sequence, r.Dirty, r.Data, p.Revision}, nil
}

type parentRecord struct {
	V         int          `json:"v"`
	Key       string       `json:"key"`
	Snapshot  string       `json:"snapshot,omitempty"`
	Status    ParentStatus `json:"status"`
	Gateway   string       `json:"gateway,omitempty"`
	Done      int64        `json:"done,omitempty"`
	Total     int64        `json:"total,omitempty"`
	CreatedAt time.Time    `json:"created_at"`
	UpdatedAt time.Time    `json:"updated_at"`
}

func (p Parent) record() parentRecord {
	return parentRecord{recordVersion, p.Key, p.Snapshot, p.Status, p.Gateway, p.Done, p.Total, p.CreatedAt, p.UpdatedAt}
}

func decodeParent(p Pair) (Parent, error) {
	var r parentRecord
	if err := decode(p, &r, &r.V); err != nil {
		return Parent{}, err
	}
	image, store, _ := strings.Cut(strings.TrimPrefix(p.Key, preParent), "/")
	return Parent{image, store, r.Key, r.Snapshot, r.Status, r.Gateway, r.Done, r.Total,
		moment(r.CreatedAt), moment(r.UpdatedAt), p.Revision}, nil
}

// A dataRecord keeps bytes that the catalog does not look into.
type dataRecord struct {
	V    int       `json:"v"`
	Data []byte    `json:"data"`
	At   time.Time `json:"at"`
}

func decodeData(p Pair) (dataRecord, error) {
	var r dataRecord
	err := decodeAll(p, &r, &r.V)
	return r, err
}

// putData returns the operation that writes a record around data, of which
// there may be more than of text.
func putData(key string, record any, data []byte) (Op, error) {
	if len(data) > MaxData {
		return Op{}, fmt.Errorf("catalog: %d bytes of data for %s, %d are allowed: %w", len(data), key, MaxData, ErrTooBig)
	}
	value, err := json.Marshal(record)
	if err != nil {
		return Op{}, fmt.Errorf("catalog: encode %s: %w", key, err)
	}
	return Op{Key: key, Value: value}, nil
}
