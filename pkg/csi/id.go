package csi

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// A kind is what a device is to CSI; it begins the device's name.
type kind string

const (
	aVolume   kind = "v"
	aSnapshot kind = "s"
)

// Grammars:
//
//	id      key "." device
//	key     32 of 0-9 and a-f
//	device  ("v" | "s") ("-" plain | "x-" 32 of 0-9 and a-f)
//	plain   1 to 63 of a-z, 0-9 and "-", the first no "-"
const (
	keyLength   = 32
	plainLength = 63
)

func isHex(text string) bool {
	return len(text) == keyLength && strings.Trim(text, "0123456789abcdef") == ""
}

func isPlain(text string) bool {
	if text == "" || len(text) > plainLength || text[0] == '-' {
		return false
	}
	for i := range len(text) {
		if c := text[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// deviceName returns the name of the device for what the orchestrator calls name. Most
// names can be recognized in it; others are hashed.
func (k kind) deviceName(name string) string {
	if isPlain(name) {
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
	key, device, _ := strings.Cut(text, ".")
	if !isHex(key) || kindOf(device) != k {
		return id{}, fmt.Errorf("%w: %.140q is no id of ours", errNoSuchID, text)
	}
	return id{pool: key, device: device}, nil
}

// kindOf returns what a device is to CSI; nothing, if it was made for somebody else.
func kindOf(device string) kind {
	if len(device) < 2 || device[0] != aVolume[0] && device[0] != aSnapshot[0] {
		return ""
	}
	plain, isOne := strings.CutPrefix(device[1:], "-")
	hashed, isOther := strings.CutPrefix(device[1:], "x-")
	if isOne && isPlain(plain) || isOther && isHex(hashed) {
		return kind(device[:1])
	}
	return ""
}
