package gateway

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protopath"
	"google.golang.org/protobuf/reflect/protorange"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// discardUnknown drops the fields of a message that this program does not know.
func discardUnknown(m proto.Message) {
	eachMessage(m, func(m protoreflect.Message) {
		if len(m.GetUnknown()) > 0 {
			m.SetUnknown(nil)
		}
	})
}

// hasUnknown reports whether a message has fields that this program does not know.
func hasUnknown(m proto.Message) (unknown bool) {
	eachMessage(m, func(m protoreflect.Message) { unknown = unknown || len(m.GetUnknown()) > 0 })
	return unknown
}

func eachMessage(m proto.Message, do func(protoreflect.Message)) {
	_ = protorange.Range(m.ProtoReflect(), func(at protopath.Values) error { // do returns no error
		if m, ok := at.Index(-1).Value.Interface().(protoreflect.Message); ok {
			do(m)
		}
		return nil
	})
}
