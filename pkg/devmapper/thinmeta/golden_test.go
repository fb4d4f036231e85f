package thinmeta

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// The images in testdata were written by the kernel, and the dumps beside them by
// thin_dump. To make them anew:
//
//	BOX_OUT=$PWD/pkg/devmapper/thinmeta/testdata make test-kernel PKG=./pkg/devmapper/thinmeta

// goldenImages returns the images of testdata by name.
func goldenImages(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob("testdata/*.img.gz")
	if err != nil || len(files) < 2 {
		t.Fatalf("testdata has images %v, error %v", files, err)
	}
	images := map[string][]byte{}
	for _, file := range files {
		images[file[:len(file)-len(".img.gz")]] = unzipped(t, file)
	}
	return images
}

func unzipped(t testing.TB, file string) []byte {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestGoldenImages(t *testing.T) {
	for name, image := range goldenImages(t) {
		t.Run(filepath.Base(name), func(t *testing.T) {
			dumped(t, unzipped(t, name+".xml.gz")).matches(t, openImage(image))
		})
	}
}

// Images of pools that lived by a fixed seed read, byte for byte, as thin_dump
// reads them; and if there is an output folder, they are what testdata is made of.
func TestKernelImages(t *testing.T) {
	k := leavesNothing(t)
	for seed, blockSize := range []dm.Sectors{128, 2048} {
		p := newKernelPool(t, k, metadataFile(t, 2<<20), blockSize, 1<<16)
		p.live(rand.New(rand.NewPCG(uint64(seed), 1)), 120)
		p.stop()
		image, err := os.ReadFile(p.path)
		p.must(err)
		dump := run(t, "thin_dump", p.loop.Name())
		p.close()
		image = withoutTail(image)
		dumped(t, dump).matches(t, openImage(image))
		name := fmt.Sprintf("kernel-%d", seed)
		keep(t, name+".img.gz", image)
		keep(t, name+".xml.gz", dump)
	}
}

// withoutTail cuts off the blocks at the end that were never written.
func withoutTail(image []byte) []byte {
	for len(image) > blockSize && allZero(image[len(image)-blockSize:]) {
		image = image[:len(image)-blockSize]
	}
	return image
}

// keep leaves a file in the box's output folder.
func keep(t testing.TB, name string, content []byte) {
	t.Helper()
	out := os.Getenv("BOX_OUT")
	if out == "" {
		return
	}
	var zipped bytes.Buffer
	z, err := gzip.NewWriterLevel(&zipped, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	_, err = z.Write(content)
	if err = errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(out, name), zipped.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}
