package main

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestReadyAnswer(t *testing.T) {
	const line = "pool fast: its disk is missing"
	for _, test := range []struct {
		ready   bool
		notOpen []string
		code    int
		body    string
	}{
		{true, nil, http.StatusOK, "ok\n"},
		{true, []string{line}, http.StatusOK, "ok\n" + line + "\n"},
		{false, []string{line, "pool slow: it was not opened yet"}, http.StatusServiceUnavailable, "not ready\n" + line + "\npool slow: it was not opened yet\n"},
	} {
		w := httptest.NewRecorder()
		answerReady(w, test.ready, test.notOpen)
		if w.Code != test.code || w.Body.String() != test.body {
			t.Errorf("%v, %q is answered with %d %q", test.ready, test.notOpen, w.Code, w.Body.String())
		}
	}
}
