package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
)

type operation struct {
	Kind   string   `json:"kind"`   // read | push | manifest | pull | image
	Method string   `json:"method"` // read
	Paths  []string `json:"paths"`  // read: in turn; pull: all of them
	Once   bool     `json:"once"`   // read: each path is asked for once; the load ends with the last
	Status int      `json:"status"` // read
	Bytes  int      `json:"bytes"`  // read: of each answer, -1 when any; push: of each blob; image: of each layer
	Sha256 string   `json:"sha256"` // read: of the first answer of each lane; empty when it is not looked at

	Repositories []string `json:"repositories"` // push, manifest, image: one for each lane, in turn
	Config       string   `json:"config"`       // manifest: digest of the config blob that is there
	ConfigBytes  int      `json:"configBytes"`
	Layers       int      `json:"layers"` // image
	Token        *token   `json:"token"`  // pull, image: fetched first by each operation
}

type token struct {
	Path          string `json:"path"`
	Authorization string `json:"authorization"`
}

const (
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	configType   = "application/vnd.oci.image.config.v1+json"
	layerType    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

var errExhausted = errors.New("every path was asked for")

// What one connection does again and again. `prove` is once's first call, checked whole, outside the clock.
type lane struct {
	prove func() error
	once  func() error
}

func newLane(number int, spec *operation, next *atomic.Int64, c *connection) (*lane, error) {
	repository := ""
	if len(spec.Repositories) > 0 {
		repository = spec.Repositories[number%len(spec.Repositories)]
	}
	switch spec.Kind {
	case "read":
		return readLane(spec, next, c), nil
	case "push":
		return pushLane(repository, spec.Bytes, c)
	case "manifest":
		return manifestLane(repository, spec, c), nil
	case "pull":
		return pullLane(spec, c), nil
	case "image":
		return imageLane(repository, spec, c)
	}
	return nil, fmt.Errorf("unknown kind %q", spec.Kind)
}

func readLane(spec *operation, next *atomic.Int64, c *connection) *lane {
	ask := func(check bool) error {
		turn := int(next.Add(1)) - 1
		if spec.Once && turn >= len(spec.Paths) {
			return errExhausted
		}
		path := spec.Paths[turn%len(spec.Paths)]
		var got answer
		var err error
		if check && spec.Sha256 != "" {
			sum := sha256.New()
			got, err = c.do(spec.Method, path, "", sum)
			if hash := hex.EncodeToString(sum.Sum(nil)); err == nil && hash != spec.Sha256 {
				return fmt.Errorf("%s brought other bytes: %s", path, hash)
			}
		} else {
			got, err = c.do(spec.Method, path, "", nil)
		}
		if err != nil {
			return err
		}
		if got.status != spec.Status || (spec.Bytes >= 0 && got.length != int64(spec.Bytes)) {
			return fmt.Errorf("%s %s was answered %d with %d bytes", spec.Method, path, got.status, got.length)
		}
		return nil
	}
	once := func() error { return ask(false) }
	if spec.Once {
		return &lane{func() error { return nil }, once}
	}
	return &lane{func() error { return ask(true) }, once}
}

// Random bytes that differ in their last 16: each blob is another one, and summing it costs the client next to nothing.
type salted struct {
	size   int
	shared []byte
	prefix []byte // SHA-256's state after the shared bytes
	salt   []byte
}

// The shared part by size: sixteen lanes of 256 MiB hold it once.
var sharedBytes = map[int][]byte{}

func newSalted(size int) (*salted, error) {
	s := &salted{size: max(size, 16), salt: make([]byte, 16)}
	s.shared = sharedBytes[s.size]
	if s.shared == nil {
		s.shared = make([]byte, s.size-len(s.salt))
		if _, err := rand.Read(s.shared); err != nil {
			return nil, err
		}
		sharedBytes[s.size] = s.shared
	}
	if _, err := rand.Read(s.salt); err != nil {
		return nil, err
	}
	sum := sha256.New()
	sum.Write(s.shared)
	state, err := sum.(encoding.BinaryMarshaler).MarshalBinary()
	s.prefix = state
	return s, err
}

func (s *salted) next() (string, error) {
	binary.BigEndian.PutUint64(s.salt, binary.BigEndian.Uint64(s.salt)+1)
	sum := sha256.New()
	if err := sum.(encoding.BinaryUnmarshaler).UnmarshalBinary(s.prefix); err != nil {
		return "", err
	}
	sum.Write(s.salt)
	return "sha256:" + hex.EncodeToString(sum.Sum(nil)), nil
}

// A blob, as clients push one whose digest they know: POST for a location, one PUT with the bytes.
func pushBlob(c *connection, repository, extra string, blob *salted) (string, error) {
	digest, err := blob.next()
	if err != nil {
		return "", err
	}
	opened, err := c.do("POST", "/v2/"+repository+"/blobs/uploads/", extra, nil)
	if err != nil {
		return "", err
	}
	if opened.status != 202 {
		return "", fmt.Errorf("an upload was opened with %d", opened.status)
	}
	put, err := c.do("PUT", withQuery(pathOf(opened.location), "digest="+digest), extra+"Content-Type: application/octet-stream\r\n", nil, blob.shared, blob.salt)
	if err == nil && put.status != 201 {
		err = fmt.Errorf("an upload was finished with %d", put.status)
	}
	return digest, err
}

func pushLane(repository string, size int, c *connection) (*lane, error) {
	blob, err := newSalted(size)
	if err != nil {
		return nil, err
	}
	once := func() error {
		_, err := pushBlob(c, repository, "", blob)
		return err
	}
	prove := func() error {
		digest, err := pushBlob(c, repository, "", blob)
		if err != nil {
			return err
		}
		there, err := c.do("HEAD", "/v2/"+repository+"/blobs/"+digest, "", nil)
		if err == nil && (there.status != 200 || there.length != int64(blob.size)) {
			err = fmt.Errorf("a pushed blob was answered %d with %d bytes", there.status, there.length)
		}
		return err
	}
	return &lane{prove, once}, nil
}

type descriptor struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int    `json:"size"`
}

type manifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	Config        descriptor        `json:"config"`
	Layers        []descriptor      `json:"layers"`
	Annotations   map[string]string `json:"annotations"`
}

// Each manifest is another one, under a tag of its own.
func putManifest(c *connection, repository, extra string, config descriptor, layers []descriptor) error {
	id := make([]byte, 12)
	if _, err := rand.Read(id); err != nil {
		return err
	}
	tag := "t" + hex.EncodeToString(id)
	body, err := json.Marshal(manifest{2, manifestType, config, layers, map[string]string{"id": tag}})
	if err != nil {
		return err
	}
	put, err := c.do("PUT", "/v2/"+repository+"/manifests/"+tag, extra+"Content-Type: "+manifestType+"\r\n", nil, body)
	if err == nil && put.status != 201 {
		err = fmt.Errorf("a manifest was answered %d", put.status)
	}
	return err
}

func manifestLane(repository string, spec *operation, c *connection) *lane {
	config := descriptor{configType, spec.Config, spec.ConfigBytes}
	once := func() error { return putManifest(c, repository, "", config, []descriptor{}) }
	return &lane{once, once}
}

// The header to send from here on, with a token of this operation's own when the registry has a token service.
func authorize(c *connection, wanted *token) (string, error) {
	if wanted == nil {
		return "", nil
	}
	var body bytes.Buffer
	got, err := c.do("GET", wanted.Path, "Authorization: "+wanted.Authorization+"\r\n", &body)
	if err != nil {
		return "", err
	}
	var parsed struct {
		Token string `json:"token"`
	}
	if err := json.Unmarshal(body.Bytes(), &parsed); err != nil || got.status != 200 {
		return "", fmt.Errorf("a token was answered %d: %s", got.status, body.Bytes())
	}
	return "Authorization: Bearer " + parsed.Token + "\r\n", nil
}

// A whole pull: token, then each path in order.
func pullLane(spec *operation, c *connection) *lane {
	once := func() error {
		authorization, err := authorize(c, spec.Token)
		if err != nil {
			return err
		}
		for _, path := range spec.Paths {
			got, err := c.do("GET", path, authorization+"Accept: "+manifestType+"\r\n", nil)
			if err != nil {
				return err
			}
			if got.status != 200 {
				return fmt.Errorf("%s was answered %d", path, got.status)
			}
		}
		return nil
	}
	return &lane{once, once}
}

// A whole push: token, then for the config and each layer "is it there" and the blob, then the manifest.
func imageLane(repository string, spec *operation, c *connection) (*lane, error) {
	var blobs []*salted
	for n := 0; n <= spec.Layers; n++ {
		blob, err := newSalted(spec.Bytes)
		if err != nil {
			return nil, err
		}
		blobs = append(blobs, blob)
	}
	absent := "/v2/" + repository + "/blobs/sha256:" + hex.EncodeToString(make([]byte, 32))
	once := func() error {
		authorization, err := authorize(c, spec.Token)
		if err != nil {
			return err
		}
		var descriptors []descriptor
		for _, blob := range blobs {
			if there, err := c.do("HEAD", absent, authorization, nil); err != nil {
				return err
			} else if there.status != 404 {
				return fmt.Errorf("a blob that nobody pushed was answered %d", there.status)
			}
			digest, err := pushBlob(c, repository, authorization, blob)
			if err != nil {
				return err
			}
			descriptors = append(descriptors, descriptor{layerType, digest, blob.size})
		}
		descriptors[0].MediaType = configType
		return putManifest(c, repository, authorization, descriptors[0], descriptors[1:])
	}
	return &lane{once, once}, nil
}
