// Package gatewaypb is what controller and agent say to each other beside CSI.
package gatewaypb

//go:generate env PATH=../../../build/bin:/usr/bin protoc --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative gateway.proto
