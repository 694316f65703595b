//go:build !rbd

package rbd

import (
	"errors"
	"strings"
	"testing"
)

// TestAbsent: a program without librbd says why, and how to build it with.
func TestAbsent(t *testing.T) {
	_, err := Open(t.Context(), Config{Pool: "p"})
	if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "-tags rbd") {
		t.Errorf("Open = %v", err)
	}
}
