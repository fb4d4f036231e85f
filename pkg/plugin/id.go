package plugin

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// A Kind is what a device is to CSI; it begins the device's name.
type Kind string

// Kinds of devices that the orchestrator knows.
const (
	Volume   Kind = "v"
	Snapshot Kind = "s"
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

// IsKey reports whether a text is the key of a pool.
func IsKey(text string) bool { return isHex(text) }

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

// DeviceName returns the name of the device for what the orchestrator calls name. Most
// names can be recognized in it; others are hashed.
func (k Kind) DeviceName(name string) string {
	if isPlain(name) {
		return string(k) + "-" + name
	}
	sum := sha256.Sum256([]byte(name))
	return string(k) + "x-" + hex.EncodeToString(sum[:16])
}

// KeyOf returns the key of a pool by its secret. It names the pool to the orchestrator, and
// is no way back.
func KeyOf(secret string) string {
	sum := sha256.Sum256([]byte("csi-dmthin pool " + secret))
	return hex.EncodeToString(sum[:16])
}

// ErrNoSuchID is of what the grammar of ids excludes: nothing can have that id.
var ErrNoSuchID = errors.New("no such id")

// An ID names a volume or a snapshot.
type ID struct {
	Pool   string // its key
	Device string
}

func (i ID) String() string { return i.Pool + "." + i.Device }

// ParseID returns the id that a request names, if it is one of that Kind.
func ParseID(k Kind, text string) (ID, error) {
	key, device, _ := strings.Cut(text, ".")
	if !isHex(key) || KindOf(device) != k {
		return ID{}, fmt.Errorf("%w: %.140q is no id of ours", ErrNoSuchID, text)
	}
	return ID{Pool: key, Device: device}, nil
}

// KindOf returns what a device is to CSI; nothing, if it was made for somebody else.
func KindOf(device string) Kind {
	if len(device) < 2 || device[0] != Volume[0] && device[0] != Snapshot[0] {
		return ""
	}
	plain, isOne := strings.CutPrefix(device[1:], "-")
	hashed, isOther := strings.CutPrefix(device[1:], "x-")
	if isOne && isPlain(plain) || isOther && isHex(hashed) {
		return Kind(device[:1])
	}
	return ""
}
