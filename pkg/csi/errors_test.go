package csi

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

func TestCodes(t *testing.T) {
	ours := map[string]struct {
		err  error
		code codes.Code
	}{
		"errInvalid":         {errInvalid, codes.InvalidArgument},
		"plugin.ErrNoSuchID": {plugin.ErrNoSuchID, codes.NotFound},
		"errOutOfRange":      {errOutOfRange, codes.OutOfRange},
		"errNotHere":         {errNotHere, codes.ResourceExhausted},
		"errNotStaged":       {errNotStaged, codes.FailedPrecondition},
		"errNotMounted":      {errNotMounted, codes.NotFound},
		"errIncompat":        {errIncompat, codes.AlreadyExists},
		"errWrongState":      {errWrongState, codes.FailedPrecondition},
		"errBadToken":        {errBadToken, codes.Aborted},
		"errPending":         {errPending, codes.Aborted},
		"errUnsupported":     {errUnsupported, codes.InvalidArgument},
		"errNeverFits":       {errNeverFits, codes.OutOfRange},
		"errNoRoomNow":       {errNoRoomNow, codes.Internal},
	}
	below := map[string]struct {
		err  error
		code codes.Code
	}{
		"ErrInvalid":      {deviceset.ErrInvalid, codes.InvalidArgument},
		"ErrNotFound":     {deviceset.ErrNotFound, codes.NotFound},
		"ErrExists":       {deviceset.ErrExists, codes.AlreadyExists},
		"ErrTooSmall":     {deviceset.ErrTooSmall, codes.OutOfRange},
		"ErrBusy":         {deviceset.ErrBusy, codes.FailedPrecondition},
		"ErrPoolFull":     {deviceset.ErrPoolFull, codes.ResourceExhausted},
		"ErrUnavailable":  {deviceset.ErrUnavailable, codes.Unavailable},
		"ErrReadOnly":     {deviceset.ErrReadOnly, codes.Unavailable},
		"ErrQuarantined":  {deviceset.ErrQuarantined, codes.FailedPrecondition},
		"ErrLost":         {deviceset.ErrLost, codes.FailedPrecondition},
		"ErrForeign":      {deviceset.ErrForeign, codes.FailedPrecondition},
		"ErrInUse":        {deviceset.ErrInUse, codes.Unavailable},
		"ErrNotFormatted": {deviceset.ErrNotFormatted, codes.FailedPrecondition},
		"ErrShutDown":     {deviceset.ErrShutDown, codes.Unavailable},
		// These end the opening of a pool, and calls hear that it is not open.
		"ErrNoPool":       {deviceset.ErrNoPool, codes.Internal},
		"ErrLostMetadata": {deviceset.ErrLostMetadata, codes.Internal},
		"ErrNoSpace":      {deviceset.ErrNoSpace, codes.Internal}, // of an expansion, too
	}
	for file, table := range map[string]map[string]struct {
		err  error
		code codes.Code
	}{"errors.go": ours, "../deviceset/errors.go": below} {
		for _, name := range errorsIn(t, file) {
			row, ok := table[name]
			if !ok {
				t.Errorf("%s of %s: no code is expected", name, file)
				continue
			}
			for _, err := range []error{row.err, fmt.Errorf("create volume a: %w", row.err), errors.Join(errors.New("and"), row.err)} {
				if code := codeOf(err); code != row.code {
					t.Errorf("%s: %v, want %v", name, code, row.code)
				}
			}
		}
	}
	for err, want := range map[error]codes.Code{
		nil:                      codes.OK,
		context.Canceled:         codes.Canceled,
		context.DeadlineExceeded: codes.DeadlineExceeded,
		fs.ErrNotExist:           codes.Internal,
		errPanicked:              codes.Internal,
		errors.New("anything"):   codes.Internal,
		status.Error(codes.Unimplemented, "no such method"): codes.Unimplemented,
	} {
		if code := codeOf(err); code != want {
			t.Errorf("%v: %v, want %v", err, code, want)
		}
	}
	// What a handler says of an error comes before what the storage says.
	for err, want := range map[error]codes.Code{
		fmt.Errorf("%w: %w", errWrongState, deviceset.ErrPoolFull): codes.FailedPrecondition, // a snapshot
		fmt.Errorf("%w: %w", errNoRoomNow, deviceset.ErrPoolFull):  codes.Internal,           // an expansion
		fmt.Errorf("%w: %w", errNeverFits, deviceset.ErrPoolFull):  codes.OutOfRange,
		fmt.Errorf("%w: %w", errNotHere, deviceset.ErrReadOnly):    codes.ResourceExhausted, // a creation
		fmt.Errorf("%w: %w", errPending, deviceset.ErrTooSmall):    codes.Aborted,
	} {
		if code := codeOf(err); code != want {
			t.Errorf("%v: %v, want %v", err, code, want)
		}
	}
}

// errorsIn returns the names of the errors that a file declares.
func errorsIn(t *testing.T, path string) (names []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok && len(spec.Values) == 1 {
			if call, ok := spec.Values[0].(*ast.CallExpr); ok {
				if f, ok := call.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "New" {
					names = append(names, spec.Names[0].Name)
				}
			}
		}
		return true
	})
	if len(names) == 0 {
		t.Fatalf("%s declares no errors", path)
	}
	return names
}

// docs/errors.md has a row for each code that is answered, and for no other.
func TestErrorsDoc(t *testing.T) {
	text, err := os.ReadFile("../../docs/errors.md")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"INTERNAL", "UNIMPLEMENTED"}
	for _, row := range errorCodes {
		want = append(want, screaming(row.code))
	}
	slices.Sort(want)
	want = slices.Compact(want)
	var have []string
	for line := range strings.Lines(string(text)) {
		if code, ok := strings.CutPrefix(line, "## "); ok && strings.ToUpper(code) == code {
			have = append(have, strings.TrimSpace(code))
		}
	}
	slices.Sort(have)
	if !slices.Equal(have, want) {
		t.Errorf("docs/errors.md has %v, want %v", have, want)
	}
}

// screaming is how people know a code: OUT_OF_RANGE.
func screaming(c codes.Code) string {
	var b strings.Builder
	for i, r := range c.String() {
		if i > 0 && r >= 'A' && r <= 'Z' {
			b.WriteByte('_')
		}
		b.WriteRune(r)
	}
	return strings.ToUpper(b.String())
}
