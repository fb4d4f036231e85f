package postgres

import (
	"fmt"
	"strconv"
)

// Books are the bank's, at one moment.
type Books struct {
	Accounts, Branches, Tellers, History int64 // sums
	Payments                             int64
	open                                 int64 // branches
	owners                               int64 // of accounts
}

const booksQuery = `select
	(select sum(abalance) from pgbench_accounts),
	(select sum(bbalance) from pgbench_branches),
	(select sum(tbalance) from pgbench_tellers),
	(select coalesce(sum(delta), 0) from pgbench_history),
	(select count(*) from pgbench_history),
	(select count(*) from pgbench_branches),
	(select count(*) from pgbench_accounts)`

// Audit reads the books and fails if they do not agree.
func (s *Server) Audit() (b Books, err error) {
	row, err := s.Query(booksQuery)
	if err != nil {
		return b, err
	}
	_, err = fmt.Sscanf(row, "%d|%d|%d|%d|%d|%d|%d",
		&b.Accounts, &b.Branches, &b.Tellers, &b.History, &b.Payments, &b.open, &b.owners)
	if err != nil {
		return b, fmt.Errorf("the books read %q: %w", row, err)
	}
	if b.Accounts != b.Branches || b.Accounts != b.Tellers || b.Accounts != b.History || b.owners != b.open*AccountsOfBranch {
		return b, fmt.Errorf("the books do not agree: %+v", b)
	}
	return b, nil
}

// Payments counts what was paid so far, and synced.
func (s *Server) Payments() (n int64, err error) {
	row, err := s.Query("select count(*) from pgbench_history")
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(row, 10, 64)
}

// Between fails if books of some moment lack payments that had been acknowledged before,
// or have more than can have been made: when after had been, each client may have had one
// on disk that nobody had seen yet.
func (b Books) Between(before, after int64) error {
	if b.Payments < before || b.Payments > after+Clients {
		return fmt.Errorf("the books have %d payments, of a moment after %d and before %d", b.Payments, before, after)
	}
	return nil
}
