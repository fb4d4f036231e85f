package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// The bank is pgbench's. Its clients pay money in and out: a transaction changes an
// account, its teller and its branch by one amount, and notes it in the history. So
// the four sums are equal at any moment, in a copy too, unless it is torn.

const (
	branches = 4
	accounts = 100_000 * branches
	clients  = 4
	// pace is how many payments there are in a second: few enough for a slow machine,
	// and on a fast one the volume is not full too early.
	pace = 100
)

// foundBank makes branches, tellers and accounts.
func (p *postgres) foundBank() error {
	_, err := p.tool("pgbench", "--initialize", "--quiet", "--scale="+strconv.Itoa(branches))
	return err
}

// pay makes each client pay some times.
func (p *postgres) pay(times int) error {
	_, err := p.tool("pgbench", paying("--transactions="+strconv.Itoa(times))...)
	return err
}

// openBank lets clients pay until they are stopped.
func (p *postgres) openBank() (*daemon, error) {
	cmd, err := asPostgres(context.Background(), "pgbench", p.clientArgs(paying("--time=3600", "--rate="+strconv.Itoa(pace)))...)
	if err != nil {
		return nil, err
	}
	return startDaemon(cmd, filepath.Join(p.socket, "pgbench.log"), syscall.SIGTERM)
}

func paying(how ...string) []string {
	return append([]string{"--no-vacuum", "--client=" + strconv.Itoa(clients)}, how...)
}

// Books are the bank's, at one moment.
type books struct {
	accounts, branches, tellers, history int64 // sums
	owners                               int64 // of accounts
	payments                             int64
}

const booksQuery = `select
	(select sum(abalance) from pgbench_accounts),
	(select sum(bbalance) from pgbench_branches),
	(select sum(tbalance) from pgbench_tellers),
	(select coalesce(sum(delta), 0) from pgbench_history),
	(select count(*) from pgbench_accounts),
	(select count(*) from pgbench_history)`

// audit reads the books and fails if they do not agree.
func (p *postgres) audit() (b books, err error) {
	row, err := p.query(booksQuery)
	if err != nil {
		return b, err
	}
	_, err = fmt.Sscanf(row, "%d|%d|%d|%d|%d|%d", &b.accounts, &b.branches, &b.tellers, &b.history, &b.owners, &b.payments)
	if err != nil {
		return b, fmt.Errorf("the books read %q: %w", row, err)
	}
	if b.accounts != b.branches || b.accounts != b.tellers || b.accounts != b.history || b.owners != accounts {
		return b, fmt.Errorf("the books do not agree: %+v", b)
	}
	return b, nil
}

// payments counts what was paid so far, and synced.
func (p *postgres) payments() (n int64, err error) {
	row, err := p.query("select count(*) from pgbench_history")
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(row, 10, 64)
}

// A moment is when a copy was taken, told by what had been paid before and after.
type moment struct {
	before, after int64
	took          time.Duration
}

func (m moment) String() string {
	return fmt.Sprintf("the call itself: %v; %d payments were acknowledged before, %d after", round(m.took), m.before, m.after)
}

// momentOf has a copy taken while the bank is open.
func (p *postgres) momentOf(take func() error) (m moment, err error) {
	if m.before, err = p.payments(); err != nil {
		return m, err
	}
	begin := time.Now()
	err = take()
	if m.took = time.Since(begin); err != nil {
		return m, err
	}
	m.after, err = p.payments()
	return m, err
}

// judge fails if a copy lacks what had been acknowledged when it was taken, or has
// more than there can have been: each client may have a payment on disk that nobody
// has seen yet.
func (m moment) judge(b books) error {
	if b.payments < m.before || b.payments > m.after+clients {
		return fmt.Errorf("the copy has %d payments: it was taken after %d and before %d", b.payments, m.before, m.after)
	}
	return nil
}
