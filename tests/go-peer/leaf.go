package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
)

// leaf is one message that was read, or one layer that could not be: a JSON object whose closing
// brace is still to come.
type leaf []byte

func newLeaf(kind string) leaf {
	return strconv.AppendQuote(append(leaf(nil), `{"type":`...), kind)
}

func userLeaf(payload []byte) leaf {
	return newLeaf("user").field("payload", payload)
}

func unknown(kind byte) leaf {
	return failed(fmt.Sprintf("unknown %d", kind), fmt.Errorf("msg type (%d) not supported", kind))
}

// failed tells what the library said of it, or that the library panicked.
func failed(kind string, err error) leaf {
	key := "error"
	if _, ok := err.(panicked); ok {
		key = "panic"
	}
	text, _ := json.Marshal(err.Error())
	return append(newLeaf(kind).key(key), text...)
}

type panicked struct{ text string }

func (p panicked) Error() string { return p.text }

// guarded turns a panic, which would end a process that uses the library, into an error.
func guarded(f func() error) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = panicked{fmt.Sprint(cause)}
		}
	}()
	return f()
}

func (l leaf) key(name string) leaf {
	return append(strconv.AppendQuote(append(l, ','), name), ':')
}

func (l leaf) field(name string, value any) leaf {
	return l.key(name).value(reflect.ValueOf(value))
}

// fields adds all fields of the struct that is pointed to, under their names.
func (l leaf) fields(message any) leaf {
	return l.members(reflect.ValueOf(message).Elem())
}

func (l leaf) members(message reflect.Value) leaf {
	of := message.Type()
	for i := range of.NumField() {
		l = l.key(of.Field(i).Name).value(message.Field(i))
	}
	return l
}

// value adds a number or flag as it is, and strings and bytes in hexadecimal, since names need not
// be UTF-8.
func (l leaf) value(value reflect.Value) leaf {
	switch value.Kind() {
	case reflect.Bool:
		return strconv.AppendBool(l, value.Bool())
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		return strconv.AppendUint(l, value.Uint(), 10)
	case reflect.Int:
		return strconv.AppendInt(l, value.Int(), 10)
	case reflect.String:
		return append(hex.AppendEncode(append(l, '"'), []byte(value.String())), '"')
	case reflect.Slice:
		switch {
		case value.Type().Elem().Kind() != reflect.Uint8:
			return l.states(value)
		case value.IsNil():
			return append(l, "null"...)
		default:
			return append(hex.AppendEncode(append(l, '"'), value.Bytes()), '"')
		}
	default:
		panic("no message has a field of the kind " + value.Kind().String())
	}
}

func (l leaf) states(states reflect.Value) leaf {
	l = append(l, '[')
	for i := range states.Len() {
		object := leaf(nil).members(states.Index(i))
		// Without the comma before its first key.
		object[0] = '{'
		if i > 0 {
			l = append(l, ',')
		}
		l = append(append(l, object...), '}')
	}
	return append(l, ']')
}
