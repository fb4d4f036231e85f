package csi

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
)

// A kind is what a device is to CSI; it begins the device's name.
type kind string

const (
	aVolume   kind = "v"
	aSnapshot kind = "s"
)

var (
	plainName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	idGrammar = regexp.MustCompile(`^([0-9a-f]{32})\.(([vs])(?:-[a-z0-9][a-z0-9-]{0,62}|x-[0-9a-f]{32}))$`)
)

// deviceName returns the name of the device for what the orchestrator calls name. Most
// names can be recognized in it; others are hashed.
func (k kind) deviceName(name string) string {
	if plainName.MatchString(name) {
		return string(k) + "-" + name
	}
	sum := sha256.Sum256([]byte(name))
	return string(k) + "x-" + hex.EncodeToString(sum[:16])
}

// keyOf returns the key of a pool. It names the pool to the orchestrator, and is no way
// back to the UUID by which the kernel knows its devices.
func keyOf(poolUUID string) string {
	sum := sha256.Sum256([]byte("csi-dmthin pool " + poolUUID))
	return hex.EncodeToString(sum[:16])
}

// An id names a volume or a snapshot.
type id struct {
	pool   string // key
	device string
}

func (i id) String() string { return i.pool + "." + i.device }

// parseID returns the id that a request names, if it is one of that kind.
func parseID(k kind, text string) (id, error) {
	m := idGrammar.FindStringSubmatch(text)
	if m == nil || kind(m[3]) != k {
		return id{}, fmt.Errorf("%w: %q is no id of ours", errNoSuchID, text)
	}
	return id{pool: m[1], device: m[2]}, nil
}

// kindOf returns what a device is to CSI; nothing, if it was made for somebody else.
func kindOf(device string) kind {
	if m := idGrammar.FindStringSubmatch("00000000000000000000000000000000." + device); m != nil {
		return kind(m[3])
	}
	return ""
}
