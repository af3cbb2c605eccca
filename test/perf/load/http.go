package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
)

// One keep-alive connection, without an HTTP library in the way. A server that closes it fails the run.
type connection struct {
	socket  net.Conn
	reader  *bufio.Reader
	host    string
	headers string
}

type answer struct {
	status   int
	location string
	length   int64 // -1: not said
}

func open(address string, secure bool, headers map[string]string) (*connection, error) {
	socket, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	if secure {
		// Its own certificate on the own machine: what is measured is the cipher, not who vouches for it.
		socket = tls.Client(socket, &tls.Config{InsecureSkipVerify: true})
	}
	var text strings.Builder
	for name, value := range headers {
		fmt.Fprintf(&text, "%s: %s\r\n", name, value)
	}
	return &connection{socket, bufio.NewReaderSize(socket, 256<<10), address, text.String()}, nil
}

// One request; its body is the parts one after another. Where the answer's body goes: nowhere when sink is nil.
func (c *connection) do(method, path, extra string, sink io.Writer, parts ...[]byte) (answer, error) {
	length := 0
	for _, part := range parts {
		length += len(part)
	}
	var head bytes.Buffer
	fmt.Fprintf(&head, "%s %s HTTP/1.1\r\nHost: %s\r\n%s%s", method, path, c.host, c.headers, extra)
	if length > 0 || method == "POST" {
		fmt.Fprintf(&head, "Content-Length: %d\r\n", length)
	}
	head.WriteString("\r\n")
	buffers := net.Buffers(append([][]byte{head.Bytes()}, parts...))
	if _, err := buffers.WriteTo(c.socket); err != nil {
		return answer{}, fmt.Errorf("%s %s: %w", method, path, err)
	}
	got, err := c.read(method, sink)
	if err != nil {
		return got, fmt.Errorf("%s %s: %w", method, path, err)
	}
	return got, nil
}

func (c *connection) read(method string, sink io.Writer) (answer, error) {
	got := answer{length: -1}
	line, err := c.reader.ReadSlice('\n')
	if err != nil {
		return got, err
	}
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
		return got, fmt.Errorf("answered %q", line)
	}
	if got.status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return got, err
	}
	chunked, closing := false, false
	for {
		line, err = c.reader.ReadSlice('\n')
		if err != nil {
			return got, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("content-length")):
			if got.length, err = strconv.ParseInt(string(value), 10, 64); err != nil {
				return got, err
			}
		case bytes.EqualFold(name, []byte("location")):
			got.location = string(value)
		case bytes.EqualFold(name, []byte("transfer-encoding")):
			chunked = bytes.EqualFold(value, []byte("chunked"))
		case bytes.EqualFold(name, []byte("connection")) && bytes.EqualFold(value, []byte("close")):
			closing = true
		}
	}
	if method == "HEAD" || got.status == 204 || got.status == 304 {
		return got, nil
	}
	if got.status >= 400 && sink == nil {
		sink = &limited{}
	}
	if chunked {
		got.length, err = c.chunks(sink)
	} else if got.length > 0 {
		err = c.copy(got.length, sink)
	}
	if complaint, is := sink.(*limited); is && err == nil {
		err = fmt.Errorf("%d %s", got.status, complaint.text)
	}
	if closing && err == nil {
		err = errors.New("the server closes the connection")
	}
	return got, err
}

// The first of an error's text.
type limited struct{ text []byte }

func (l *limited) Write(data []byte) (int, error) {
	if room := 500 - len(l.text); room > 0 {
		l.text = append(l.text, data[:min(room, len(data))]...)
	}
	return len(data), nil
}

func (c *connection) copy(length int64, sink io.Writer) error {
	if sink == nil {
		_, err := c.reader.Discard(int(length))
		return err
	}
	_, err := io.CopyN(sink, c.reader, length)
	return err
}

func (c *connection) chunks(sink io.Writer) (int64, error) {
	var total int64
	for {
		line, err := c.reader.ReadSlice('\n')
		if err != nil {
			return total, err
		}
		size, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 16, 64)
		if err != nil {
			return total, err
		}
		if err := c.copy(size, sink); err != nil {
			return total, err
		}
		if _, err := c.reader.Discard(2); err != nil {
			return total, err
		}
		if size == 0 {
			return total, nil
		}
		total += size
	}
}

// The path and query of a Location, which may be absolute.
func pathOf(location string) string {
	if _, rest, found := strings.Cut(location, "://"); found {
		return rest[strings.IndexByte(rest, '/'):]
	}
	return location
}

func withQuery(path, query string) string {
	if strings.Contains(path, "?") {
		return path + "&" + query
	}
	return path + "?" + query
}
