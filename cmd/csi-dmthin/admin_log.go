package main

import (
	"fmt"
	"log/slog"
	"net/http"
	"strconv"

	"k8s.io/klog/v2"
)

// A logLevel is how much the agent logs: -v.
type logLevel struct {
	Level int `json:"level"`
}

// mostVerbose is beyond what anybody logs at: 4 has each request to device-mapper.
const mostVerbose = 10

func currentLogLevel() (l logLevel) {
	for l.Level < mostVerbose && klog.V(klog.Level(l.Level+1)).Enabled() {
		l.Level++
	}
	return l
}

func (l logLevel) set() error {
	if l.Level < 0 || l.Level > mostVerbose {
		return &requestError{http.StatusBadRequest, fmt.Errorf("log level %d: want 0 to %d", l.Level, mostVerbose)}
	}
	var verbosity klog.Level
	return verbosity.Set(strconv.Itoa(l.Level)) // it is klog's own that this sets
}

// slogLevel is klog's verbosity as slog counts it, so that JSON has what text would have.
type slogLevel struct{}

// Level returns it as it is now.
func (slogLevel) Level() slog.Level { return slog.Level(-currentLogLevel().Level) }
