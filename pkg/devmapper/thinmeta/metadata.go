package thinmeta

import "fmt"

// Metadata is the metadata of a pool, open for reading. The pool may be active.
//
// Its methods may be called by several goroutines at once. Each reads anew, so
// two answers may be of two moments, unless the metadata is held. Their errors
// are, apart from those of the disk:
//
//   - *CorruptError: a block is not what it should be.
//   - ErrNoSuchDevice, where a device is named.
//   - ErrChanged: the pool was faster, several times.
//   - ErrNotHeld: the metadata snapshot was released.
//   - ErrBlank, ErrUnsupported: there is no pool's metadata, or of a newer kind.
type Metadata struct {
	source *source
	path   string
	held   bool
}

// Open opens the metadata on a device, or in a file, as of the last commit. What
// hangs on the pool as a whole, such as the list of devices, needs a moment
// without a commit to be read. What hangs on one device is read at leisure while
// others are written, as long as that device is inactive.
func Open(path string) (*Metadata, error) { return open(path, false) }

// OpenHeld opens the metadata that a pool holds since
// devmapper.Pool.ReserveMetadataSnap: it does not change until it is released.
// While it is held, it counts as one more owner of all that it maps: Exclusive
// then finds in a device of the pool only what was written since.
func OpenHeld(path string) (*Metadata, error) { return open(path, true) }

func open(path string, held bool) (*Metadata, error) {
	s, err := openSource(path)
	if err != nil {
		return nil, fmt.Errorf("open metadata: %w", err)
	}
	m := &Metadata{source: s, path: path, held: held}
	if err := m.probe(); err != nil {
		_ = s.close() // it was only read
		return nil, m.failed(err, "open metadata")
	}
	return m, nil
}

// probe finds out whether there is metadata at all.
func (m *Metadata) probe() error {
	_, err := settled(m, func(*moment) (struct{}, error) { return struct{}{}, nil })
	return err
}

// Close closes the device. Closing again is no error.
func (m *Metadata) Close() error { return m.source.close() }

// Reads counts the blocks read so far, those included that were read again to
// see whether they had changed.
func (m *Metadata) Reads() uint64 { return m.source.readCount() }

// failed gives an error its operation and object.
func (m *Metadata) failed(err error, operation string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %s: %w", m.path, fmt.Sprintf(operation, args...), err)
}
