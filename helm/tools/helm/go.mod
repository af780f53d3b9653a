// Helm 3 and 4 and helm-unittest, built together: what they share is compiled once.
module tools

go 1.26.0

require (
	github.com/helm-unittest/helm-unittest v1.1.2
	helm.sh/helm/v3 v3.21.3
	helm.sh/helm/v4 v4.3.2
)

// As helm-unittest itself does.
replace github.com/vmware-labs/yaml-jsonpath => github.com/helm-unittest/yaml-jsonpath v0.4.0
