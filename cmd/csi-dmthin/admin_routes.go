package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/pprof"
	"time"

	"k8s.io/klog/v2"
)

// mostRequest is how many bytes a request may have.
const mostRequest = 1 << 16

// routes are what the admin socket serves. Answers are JSON; an error is {"error": text}.
func (a *admin) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /v1/status", asked(func(r *http.Request, _ struct{}) (any, error) { return a.status(r.FormValue("pool")) }))
	mux.Handle("GET /v1/devices", asked(func(r *http.Request, _ struct{}) (any, error) { return a.devices(r.FormValue("pool")) }))
	mux.Handle("GET /v1/check", asked(func(r *http.Request, _ struct{}) (any, error) { return a.check(r.Context(), r.FormValue("pool")) }))
	mux.Handle("PUT /v1/pools/{pool}/size", told(func(r *http.Request, want poolSize) (any, error) { return a.grow(r.PathValue("pool"), want) }))
	mux.Handle("POST /v1/pools/{pool}/adoption", told(func(r *http.Request, want adoptionRequest) (any, error) { return a.adopt(r.PathValue("pool"), want) }))
	mux.Handle("POST /v1/pools/{pool}/devices", told(func(r *http.Request, want deviceAdoption) (any, error) {
		return a.adoptDevice(r.PathValue("pool"), want)
	}))
	mux.Handle("GET /v1/log-level", asked(func(*http.Request, struct{}) (any, error) { return currentLogLevel(), nil }))
	mux.Handle("PUT /v1/log-level", told(func(_ *http.Request, want logLevel) (any, error) { return want, want.set() }))
	for path, handler := range map[string]http.HandlerFunc{
		"/": pprof.Index, "/cmdline": pprof.Cmdline, "/profile": pprof.Profile, "/symbol": pprof.Symbol, "/trace": pprof.Trace,
	} {
		mux.Handle("GET /debug/pprof"+path, handler)
	}
	return mux
}

// A requestError is one of the request, rather than of what was asked for.
type requestError struct {
	status int
	error
}

func (e *requestError) Unwrap() error { return e.error }

// asked serves a question.
func asked[T any](do func(*http.Request, T) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var nothing T
		value, err := do(r, nothing)
		answer(w, value, err)
	})
}

// told serves an order, whose body is a T, and logs that it was given.
func told[T any](do func(*http.Request, T) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begin := time.Now()
		var value any
		want, err := decode[T](w, r)
		if err == nil {
			value, err = do(r, want)
		}
		klog.InfoS("An operator has given an order", "order", r.Method+" "+r.URL.Path, "took", time.Since(begin), "err", err)
		answer(w, value, err)
	})
}

func decode[T any](w http.ResponseWriter, r *http.Request) (want T, err error) {
	body := json.NewDecoder(http.MaxBytesReader(w, r.Body, mostRequest))
	body.DisallowUnknownFields()
	if err = body.Decode(&want); err != nil {
		err = &requestError{http.StatusBadRequest, fmt.Errorf("%s %s: body: %w", r.Method, r.URL.Path, err)}
	}
	return want, err
}

// A failure is the answer to what went wrong.
type failure struct {
	Error string `json:"error"`
}

func answer(w http.ResponseWriter, value any, err error) {
	status := http.StatusOK
	if err != nil {
		value, status = failure{err.Error()}, http.StatusInternalServerError
		if ofRequest := (*requestError)(nil); errors.As(err, &ofRequest) {
			status = ofRequest.status
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value) // whoever asked has gone
}
