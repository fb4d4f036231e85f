package gateway

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"
)

// expired reports whether a token says of itself that its time is over. It was found
// genuine before; one that cannot be read does not count as that.
func expired(token string, now time.Time) bool {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return true
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	var claims struct {
		Expires int64 `json:"exp"`
	}
	if err == nil {
		err = json.Unmarshal(text, &claims)
	}
	return err != nil || now.Unix() >= claims.Expires
}
