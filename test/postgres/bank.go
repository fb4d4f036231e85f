package postgres

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/csi-dmthin/csi-dmthin/test/postgres/daemon"
)

// The bank is pgbench's. Its clients pay money in and out: a transaction changes an
// account, its teller and its branch by one amount, and notes it in the history. So
// the four sums are equal at any moment, in a copy too, unless it is torn.

// Clients is how many pay at a time.
const Clients = 4

// AccountsOfBranch is how many accounts a branch has.
const AccountsOfBranch = 100_000

// FoundBank makes branches, their tellers and their accounts.
func (s *Server) FoundBank(branches int) error {
	_, err := s.client("pgbench", "--initialize", "--quiet", "--scale="+strconv.Itoa(branches))
	return err
}

// Pay makes each client pay some times.
func (s *Server) Pay(times int) error {
	_, err := s.client("pgbench", paying("--transactions="+strconv.Itoa(times))...)
	return err
}

// Payers are clients that pay until they are stopped, or cannot.
type Payers struct {
	*daemon.Process
	log string // has a line for each payment
}

// OpenBank lets clients pay, so many times in a second.
func (s *Server) OpenBank(pace int) (*Payers, error) {
	log := filepath.Join(s.scratch, "payments")
	cmd, err := command(context.Background(), "pgbench", s.clientArgs(paying("--time=3600",
		"--rate="+strconv.Itoa(pace), "--log", "--log-prefix="+log, "--progress=1"))...)
	if err != nil {
		return nil, err
	}
	p, err := daemon.Start(cmd, filepath.Join(s.scratch, "pgbench.log"), syscall.SIGTERM)
	if err != nil {
		return nil, err
	}
	return &Payers{Process: p, log: fmt.Sprintf("%s.%d", log, p.Pid())}, nil
}

func paying(how ...string) []string {
	return append([]string{"--no-vacuum", "--client=" + strconv.Itoa(Clients)}, how...)
}

// Begun waits until they have been paying for a second.
func (p *Payers) Begun() error {
	return p.Until("begun to pay", func() (bool, error) { return p.Said("progress: "), nil })
}

// Acknowledged counts, of clients that have ended because the server did, the payments
// that they were told are done. It does not count those of clients that were stopped:
// only who ends by itself writes down all that it knows.
func (p *Payers) Acknowledged() (int64, error) {
	<-p.Ended()
	log, err := os.ReadFile(p.log)
	return int64(bytes.Count(log, []byte("\n"))), err
}
