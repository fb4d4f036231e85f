package main

import (
	"strings"
	"testing"
)

func TestTally(t *testing.T) {
	const events = `{"Action":"start","Package":"p"}
{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"run","Package":"p","Test":"TestA/one"}
{"Action":"run","Package":"p","Test":"TestA/two"}
{"Action":"pass","Package":"p","Test":"TestA/one"}
{"Action":"fail","Package":"p","Test":"TestA/two"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"run","Package":"p","Test":"TestB"}
{"Action":"output","Package":"p","Test":"TestB","Output":"ok  \tis no result\n"}
{"Action":"skip","Package":"p","Test":"TestB"}
{"Action":"output","Package":"p","Output":"FAIL\n"}
{"Action":"output","Package":"p","Output":"FAIL\tp\t1.5s\n"}
{"Action":"fail","Package":"p"}
plain
{"Action":"run","Package":"q","Test":"TestA"}
{"Action":"run","Package":"q","Test":"TestA/one"}
{"Action":"pass","Package":"q","Test":"TestA/one"}
{"Action":"fail","Package":"q","Test":"TestA"}
{"Action":"output","Package":"q","Output":"ok  \tq\t0.5s\n"}`
	const want = `=== RUN   TestA
ok  	is no result
FAIL
plain
skip: p.TestB
fail: p.TestA/two
fail: q.TestA
kernel tests (uml): 2 passed, 2 failed, 1 skipped
FAIL	p	1.5s
ok  	q	0.5s
`
	var counted tally
	var out strings.Builder
	if err := counted.read(strings.NewReader(events), &out); err != nil {
		t.Fatal(err)
	}
	counted.report("kernel tests (uml)", &out)
	if out.String() != want {
		t.Errorf("%s", out.String())
	}
}
