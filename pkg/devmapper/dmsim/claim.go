package dmsim

import "golang.org/x/sys/unix"

// A claim tells who uses a block device exclusively: the tables of dm devices,
// which share it, or one open file (block/bdev.c: bd_may_claim; drivers/md/dm.c:
// open_table_device claims for device-mapper as a whole). Files that are open
// without O_EXCL claim nothing and disturb nobody.
type claim struct {
	tables int
	file   bool
}

func (c *claim) claimed() *claim { return c }

func (c *claim) byTable() error {
	if c.file {
		return unix.EBUSY
	}
	c.tables++
	return nil
}

func (c *claim) byFile() error {
	if c.file || c.tables > 0 {
		return unix.EBUSY
	}
	c.file = true
	return nil
}
