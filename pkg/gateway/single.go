package gateway

import (
	"io"
	"net"
	"sync"
)

// A single is a listener with one connection: for a server on the side that has dialled.
// When the connection is closed it ends. When it is closed the connection stays, if the
// server has it already: calls may be carried out on it.
type single struct {
	once   chan net.Conn
	addr   net.Addr
	closed chan struct{}
	end    func()
}

func newSingle(c net.Conn) *single {
	s := &single{once: make(chan net.Conn, 1), addr: c.LocalAddr(), closed: make(chan struct{})}
	s.end = sync.OnceFunc(func() { close(s.closed) })
	s.once <- closing{c, s.end}
	return s
}

func (s *single) Accept() (net.Conn, error) {
	select {
	case c := <-s.once:
		return c, nil
	case <-s.closed:
		return nil, io.EOF
	}
}

func (s *single) Close() error {
	s.end()
	select {
	case c := <-s.once:
		return c.Close()
	default:
		return nil
	}
}

func (s *single) Addr() net.Addr { return s.addr }

// closing tells when a connection is closed.
type closing struct {
	net.Conn
	closed func()
}

func (c closing) Close() error {
	c.closed()
	return c.Conn.Close()
}
