// Writes a vulnerability database of Trivy (schema 2) with a handful of findings into a folder: trivy-db FOLDER.
// Tests need one that is small, does not change, and asks nobody.
package main

import (
	"encoding/json"
	"log"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
)

type fields = map[string]any

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: trivy-db FOLDER")
	}
	if err := write(os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func write(folder string) error {
	db, err := bolt.Open(filepath.Join(folder, "trivy.db"), 0o644, nil)
	if err != nil {
		return err
	}
	if err := db.Update(fill); err != nil {
		return err
	}
	if err := db.Close(); err != nil {
		return err
	}
	now := time.Now().UTC()
	metadata, err := json.Marshal(fields{"Version": 2, "UpdatedAt": now, "NextUpdate": now.AddDate(10, 0, 0), "DownloadedAt": now})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(folder, "metadata.json"), metadata, 0o644)
}

func fill(tx *bolt.Tx) error {
	const npm = "npm::GitHub Security Advisory npm"
	entries := []struct {
		value any
		path  []string // buckets, and the key at the end
	}{
		{fields{"ID": "alpine", "Name": "Alpine Secdb", "URL": "https://example.test/alpine"}, []string{"data-source", "alpine 3.21"}},
		{fields{"ID": "debian", "Name": "Debian Security Tracker", "URL": "https://example.test/debian"}, []string{"data-source", "debian 12"}},
		{fields{"ID": "ghsa", "Name": "GitHub Security Advisory npm", "URL": "https://example.test/ghsa"}, []string{"data-source", npm}},
		{fields{"FixedVersion": "3.3.3-r0"}, []string{"alpine 3.21", "openssl", "CVE-2099-0001"}},
		{fields{"VulnerableVersions": []string{"<4.17.21"}, "PatchedVersions": []string{"4.17.21"}}, []string{npm, "lodash", "CVE-2099-0002"}},
		{fields{"FixedVersion": "7.88.1-10+deb12u99"}, []string{"debian 12", "curl", "CVE-2099-0003"}},
		{fields{"Severity": 1, "Status": 2}, []string{"debian 12", "curl", "CVE-2099-0004"}}, // LOW, affected
		{vulnerability("Keys can be guessed", "CRITICAL", 4), []string{"vulnerability", "CVE-2099-0001"}},
		{vulnerability("Prototypes are polluted", "HIGH", 3), []string{"vulnerability", "CVE-2099-0002"}},
		{vulnerability("Redirects carry passwords", "MEDIUM", 2), []string{"vulnerability", "CVE-2099-0003"}},
		{vulnerability("Messages are too long", "LOW", 1), []string{"vulnerability", "CVE-2099-0004"}},
	}
	for _, entry := range entries {
		bucket, err := tx.CreateBucketIfNotExists([]byte(entry.path[0]))
		if err != nil {
			return err
		}
		last := len(entry.path) - 1
		for _, name := range entry.path[1:last] {
			if bucket, err = bucket.CreateBucketIfNotExists([]byte(name)); err != nil {
				return err
			}
		}
		value, err := json.Marshal(entry.value)
		if err != nil {
			return err
		}
		if err := bucket.Put([]byte(entry.path[last]), value); err != nil {
			return err
		}
	}
	return nil
}

func vulnerability(title, severity string, level int) fields {
	return fields{
		"Title": title, "Description": title + ".", "Severity": severity, "VendorSeverity": fields{"nvd": level},
		"CweIDs": []string{"CWE-79"}, "References": []string{"https://example.test/advisory"},
		"PublishedDate": "2026-01-02T03:04:05Z", "LastModifiedDate": "2026-01-02T03:04:05Z",
	}
}
