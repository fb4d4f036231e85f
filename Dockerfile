# The image of csi-dmthin: the binary, and what it starts or an operator needs in its container.
# tools/image builds it, on machines without a registry too.

# Debian's newest tools of file systems, such as those of a later BASE, make file systems
# that an old kernel may not know.
ARG BASE=debian:bookworm-slim
ARG GO_IMAGE=golang:1.26-bookworm
# Where the binary comes from: build, or prebuilt, which takes build/linux-ARCH/csi-dmthin.
ARG BINARY=build

FROM --platform=$BUILDPLATFORM ${GO_IMAGE} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY cmd cmd
COPY pkg pkg
ARG TARGETOS=linux
ARG TARGETARCH
ARG VERSION=unknown
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$VERSION" -o /csi-dmthin ./cmd/csi-dmthin

FROM scratch AS prebuilt
ARG TARGETARCH
COPY build/linux-$TARGETARCH/csi-dmthin /csi-dmthin

FROM ${BINARY} AS binary
# Of a stage without a step buildah 1.28 forgets to clean up.
WORKDIR /

FROM ${BASE}
# mkfs, fsck and growing; blkid; thin_check and its like, and dmsetup, for docs/repair.md.
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
    e2fsprogs xfsprogs util-linux mount thin-provisioning-tools dmsetup \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/* /var/log/*
COPY --from=binary /csi-dmthin /usr/local/bin/csi-dmthin
ARG VERSION=unknown
LABEL org.opencontainers.image.title="csi-dmthin" \
      org.opencontainers.image.description="Node-local volumes, snapshots and clones on device-mapper thin pools" \
      org.opencontainers.image.source="https://github.com/csi-dmthin/csi-dmthin" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION"
ENTRYPOINT ["/usr/local/bin/csi-dmthin"]
