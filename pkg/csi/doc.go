// Package csi serves the Container Storage Interface, version 1.13, for the pools of
// one node: Identity, Controller and Node.
//
// A volume is a layer of a graphdriver.Driver and a snapshot is a read-only one, so what
// is promised of them is what package deviceset promises: a call has happened or not,
// whatever dies meanwhile, and may be repeated. This package knows CSI's words and codes
// and decides nothing about storage.
//
// A volume's id is the key of its pool and the name of its device. It is taken apart by
// a strict grammar, looked up, and never becomes part of a path. A call that names what
// does not fit the grammar is answered as if it did not exist.
package csi
