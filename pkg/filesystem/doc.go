// Package filesystem keeps file systems on block devices: it tells what is on
// one, and makes, checks, grows and mounts what shall be.
//
// What is looked at is not written to, and nothing is made over what is not
// known to be blank. Probing, mounting and unmounting start no process. Making and
// checking run one tool each, and growing those of k8s.io/mount-utils: blkid and
// one more. They die with their context.
//
// It knows tools and mounts, and nothing of thin pools. It needs Linux 5.8.
package filesystem
