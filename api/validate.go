package api

import (
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/seed-478a8fee/platter/api/wire"
)

const (
	maxName  = 255   // characters of a name, an owner, a tag, a key
	maxValue = 65535 // bytes of a custom property's value
	maxInt32 = 1<<31 - 1
)

// A checker checks the value of a property as the image schema does. What is
// wrong is told as "must be …".
type checker struct {
	cfg  Config
	uuid *regexp.Regexp
}

func newChecker(cfg Config) (checker, error) {
	re, err := regexp.Compile(uuidPattern)
	return checker{cfg, re}, err
}

// check returns an error of status 400 if value is no value for the property.
func (c checker) check(key string, value any) error {
	if must := c.problem(key, value); must != "" {
		return wire.Errorf(http.StatusBadRequest, "The property %.100q %s.", key, must)
	}
	return nil
}

func (c checker) problem(key string, value any) string {
	switch key {
	case "id":
		return c.problemUUID(value)
	case "kernel_id", "ramdisk_id":
		if value == nil {
			return ""
		}
		return c.problemUUID(value)
	case "name", "owner":
		return nullOr(value, func(v any) string { return problemText(v, maxName) })
	case "visibility":
		return problemEnum(value, visibilities())
	case "status":
		return problemEnum(value, imageStatuses())
	case "protected", "os_hidden":
		if _, ok := value.(bool); !ok {
			return "must be true or false"
		}
		return ""
	case "disk_format":
		return nullOr(value, func(v any) string { return problemEnum(v, c.cfg.DiskFormats) })
	case "container_format":
		return nullOr(value, func(v any) string { return problemEnum(v, c.cfg.ContainerFormats) })
	case "min_disk", "min_ram":
		return problemCount(value)
	case "size", "virtual_size":
		return nullOr(value, problemInteger)
	case "checksum":
		return nullOr(value, func(v any) string { return problemText(v, 32) })
	case "os_hash_algo":
		return nullOr(value, func(v any) string { return problemText(v, 64) })
	case "os_hash_value":
		return nullOr(value, func(v any) string { return problemText(v, 128) })
	case "tags":
		return problemTags(value)
	case "cinder_encryption_key_deletion_policy":
		return problemEnum(value, keyDeletionPolicies())
	case "locations":
		return problemLocations(value)
	}
	return problemCustom(key, value)
}

func nullOr(value any, problem func(any) string) string {
	if value == nil {
		return ""
	}
	return problem(value)
}

func (c checker) problemUUID(value any) string {
	if s, ok := value.(string); !ok || !c.uuid.MatchString(s) {
		return "must be a UUID such as 01234567-89ab-cdef-0123-456789abcdef"
	}
	return ""
}

func problemText(value any, limit int) string {
	s, ok := value.(string)
	if !ok {
		return "must be a string"
	}
	if utf8.RuneCountInString(s) > limit {
		return "is too long: it may have " + itoa(limit) + " characters"
	}
	return ""
}

func problemEnum(value any, words []string) string {
	if s, ok := value.(string); !ok || !slices.Contains(words, s) {
		return "must be one of " + strings.Join(words, ", ")
	}
	return ""
}

func problemInteger(value any) string {
	if _, ok := integer(value); !ok {
		return "must be an integer"
	}
	return ""
}

func problemCount(value any) string {
	if n, ok := integer(value); !ok || n < 0 || n > maxInt32 {
		return "must be an integer from 0 to 2147483647"
	}
	return ""
}

// integer returns the number if it is whole; 1.0 and 1e3 are.
func integer(value any) (int64, bool) {
	num, ok := value.(json.Number)
	if !ok {
		return 0, false
	}
	if n, err := num.Int64(); err == nil {
		return n, true
	}
	f, err := num.Float64()
	if err != nil || f != float64(int64(f)) || f > 1<<53 || f < -1<<53 {
		return 0, false
	}
	return int64(f), true
}

func problemTags(value any) string {
	list, ok := value.([]any)
	if !ok {
		return "must be an array of strings"
	}
	for _, v := range list {
		if p := problemText(v, maxName); p != "" {
			return "has a tag that " + p
		}
	}
	return ""
}

func problemLocations(value any) string {
	list, ok := value.([]any)
	if !ok {
		return "must be an array of locations"
	}
	for _, v := range list {
		loc, _ := v.(map[string]any)
		if p := problemText(loc["url"], maxName); p != "" {
			return "has a url that " + p
		}
		if _, ok := loc["metadata"].(map[string]any); !ok {
			return "has a location without metadata"
		}
	}
	return ""
}

func problemCustom(key string, value any) string {
	s, ok := value.(string)
	switch {
	case !ok:
		return "must be a string"
	case len(s) > maxValue:
		return "is too long: a value may have " + itoa(maxValue) + " bytes"
	case utf8.RuneCountInString(key) > maxName:
		return "has a name that is too long: it may have " + itoa(maxName) + " characters"
	}
	return ""
}
