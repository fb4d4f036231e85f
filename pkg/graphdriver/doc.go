// Package graphdriver gives a device set the semantics of layers: the devicemapper
// graph driver's Driver, with its methods and their meaning.
//
// A layer is a thin device. One with a parent begins as a snapshot of it and shares
// what neither has changed; one without begins as a copy of the formatted base device,
// or blank. Get mounts a layer, with its files below rootfs; Put lets go of it. Both
// are counted, and the counts outlive the process: what is mounted stays mounted when
// it dies, and the next one knows how often it was got.
//
// What is promised of devices is package deviceset's: whatever Driver does is one verb
// of its.
package graphdriver
