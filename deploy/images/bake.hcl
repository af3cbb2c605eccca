# All images at once: docker buildx bake -f deploy/images/bake.hcl
variable "HAVEN_IMAGES" {
  default = "haven"
  description = "What their names begin with: haven, or registry.example/team/haven."
}
variable "HAVEN_VERSION" {
  default = "0.1.0"
  description = "Their tag, and the label of that name."
}
variable "REVISION" {
  default = ""
  description = "The commit that they were made from."
}
variable "SOURCE" {
  default = ""
  description = "Where that commit is found."
}
variable "SOURCE_DATE_EPOCH" {
  default = "0"
  description = "Seconds since 1970: the time of everything in them, so that the same tree gives the same layers."
}
variable "BASE" {
  default = "node:24-bookworm-slim"
  description = "A Linux with glibc and Node 24."
}
variable "BUNDLES" {
  default = ""
  description = "The folder that deploy/images/bundle.ts wrote on this machine, instead of a build of it in a container."
}

group "default" {
  targets = ["image"]
}

target "image" {
  name = service
  matrix = {
    service = [
      "proxy", "token", "registry", "core", "jobservice", "registryctl", "log-collector", "exporter", "launcher",
    ]
  }
  dockerfile = "deploy/images/Dockerfile"
  contexts   = BUNDLES == "" ? {} : { bundles = BUNDLES }
  tags       = ["${HAVEN_IMAGES}/${service}:${HAVEN_VERSION}"]
  args = {
    SERVICE           = service
    BASE              = BASE
    VERSION           = HAVEN_VERSION
    REVISION          = REVISION
    SOURCE            = SOURCE
    SOURCE_DATE_EPOCH = SOURCE_DATE_EPOCH
    CREATED           = timeadd("1970-01-01T00:00:00Z", "${SOURCE_DATE_EPOCH}s")
  }
}
