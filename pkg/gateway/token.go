package gateway

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"
)

// expiry returns when a token ends, as it says of itself. It was found genuine before.
func expiry(token string) (end time.Time, ok bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return end, false
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	var claims struct {
		Expires int64 `json:"exp"`
	}
	if err == nil {
		err = json.Unmarshal(text, &claims)
	}
	return time.Unix(claims.Expires, 0), err == nil
}

// expired reports whether a token's time is over. One that cannot be read does not count.
func expired(token string, now time.Time) bool {
	end, ok := expiry(token)
	return !ok || !now.Before(end)
}
