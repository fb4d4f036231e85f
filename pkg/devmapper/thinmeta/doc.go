// Package thinmeta reads the metadata of a thin pool: which devices it has, what
// they map, in what two of them differ, and which blocks only one of them has.
//
// An answer is whole and true at one moment between question and answer, or it is
// an error: there are no partial ones. Every block is checked the way the kernel
// checks it and for its place in its tree, and what the pool changes meanwhile is
// noticed. Reading disturbs nobody: no lock, no message, no write.
//
// It does not see what the pool has not committed, which may be a second of
// writes (devmapper.Pool.Commit helps). It does not know how large a thin device
// is, since no pool does, and it does not repair.
//
// The format is that of Linux, drivers/md/dm-thin-metadata.c and
// drivers/md/persistent-data: blocks of 4096 bytes, little-endian, which hold
// trees whose nodes are never changed in place. So a node that two devices share
// is known to be equal by its number alone, and a delta reads only where they
// differ.
package thinmeta
