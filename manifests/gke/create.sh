#!/usr/bin/env bash
# Makes what Tidemill needs in a Google Cloud project: a GKE cluster with its node pools, a registry, a bucket, and the
# accounts that read and write it. What exists already is kept. Also writes ../overlays/gke/settings.env and the name of the
# image in its kustomization.yaml.
#
#   PROJECT=my-project REGION=europe-west4 ZONE=europe-west4-a [CLUSTER=tidemill] [BUCKET=my-project-tidemill] create.sh
#
# UNTRIED: no part of this script has run against Google Cloud. Its commands and options were compared with gcloud 528, and
# it ran with a gcloud that only answers. Not known are quotas, the time that IAM needs, and whether ZONE has these machines.
set -euo pipefail
: "${PROJECT:?the id of the project}" "${REGION:?such as europe-west4}" "${ZONE:?a zone of the region that has L4 GPUs}"
CLUSTER=${CLUSTER:-tidemill}
BUCKET=${BUCKET:-$PROJECT-tidemill}
REPOSITORY=tidemill
overlay=$(cd "$(dirname "$0")/../overlays/gke" && pwd)
accounts=$PROJECT.iam.gserviceaccount.com
nodes=tidemill-nodes@$accounts
runner=tidemill-runner@$accounts
viewer=tidemill-viewer@$accounts

exists() { "$@" --project="$PROJECT" --format='value(name)' >/dev/null 2>&1; }

pool() { # pool NAME OPTIONS...
  local name=$1
  shift
  exists gcloud container node-pools describe "$name" --cluster="$CLUSTER" --location="$ZONE" && return
  gcloud container node-pools create "$name" --project="$PROJECT" --cluster="$CLUSTER" --location="$ZONE" \
    --service-account="$nodes" --workload-metadata=GKE_METADATA --image-type=COS_CONTAINERD --enable-image-streaming \
    --enable-autoscaling --num-nodes=0 "$@"
}

may_act_as() { # may_act_as ACCOUNT NAMESPACE/SERVICE_ACCOUNT...
  local account=$1 member
  shift
  for member in "$@"; do
    gcloud iam service-accounts add-iam-policy-binding "$account" --project="$PROJECT" \
      --role=roles/iam.workloadIdentityUser --member="serviceAccount:$PROJECT.svc.id.goog[$member]"
  done
}

gcloud services enable container.googleapis.com artifactregistry.googleapis.com storage.googleapis.com --project="$PROJECT"

for name in nodes runner viewer; do
  exists gcloud iam service-accounts describe "tidemill-$name@$accounts" ||
    gcloud iam service-accounts create "tidemill-$name" --project="$PROJECT" --display-name="Tidemill, $name"
done

# Dataplane V2 enforces NetworkPolicies.
exists gcloud container clusters describe "$CLUSTER" --location="$ZONE" ||
  gcloud container clusters create "$CLUSTER" --project="$PROJECT" --location="$ZONE" --release-channel=regular \
    --workload-pool="$PROJECT.svc.id.goog" --enable-dataplane-v2 --enable-ip-alias --enable-shielded-nodes \
    --service-account="$nodes" --machine-type=e2-standard-4 --num-nodes=2
gcloud projects add-iam-policy-binding "$PROJECT" --member="serviceAccount:$nodes" \
  --role=roles/container.defaultNodeServiceAccount --condition=None

# Spot nodes are tainted, so that only steps that prefer them go there.
spot=(--spot --node-taints=cloud.google.com/gke-spot=true:NoSchedule)
gpu=(--machine-type=g2-standard-8 --accelerator=type=nvidia-l4,count=1,gpu-driver-version=latest)
pool cpu --machine-type=e2-highmem-8 --min-nodes=0 --max-nodes=8
pool cpu-spot --machine-type=e2-highmem-8 --min-nodes=0 --max-nodes=16 "${spot[@]}"
pool gpu --min-nodes=0 --max-nodes=2 "${gpu[@]}"
pool gpu-spot --min-nodes=0 --max-nodes=8 "${gpu[@]}" "${spot[@]}"

exists gcloud artifacts repositories describe "$REPOSITORY" --location="$REGION" ||
  gcloud artifacts repositories create "$REPOSITORY" --project="$PROJECT" --location="$REGION" \
    --repository-format=docker --immutable-tags
gcloud artifacts repositories add-iam-policy-binding "$REPOSITORY" --project="$PROJECT" --location="$REGION" \
  --member="serviceAccount:$nodes" --role=roles/artifactregistry.reader

exists gcloud storage buckets describe "gs://$BUCKET" ||
  gcloud storage buckets create "gs://$BUCKET" --project="$PROJECT" --location="$REGION" \
    --uniform-bucket-level-access --public-access-prevention
gcloud storage buckets add-iam-policy-binding "gs://$BUCKET" --member="serviceAccount:$runner" \
  --role=roles/storage.objectUser
gcloud storage buckets add-iam-policy-binding "gs://$BUCKET" --member="serviceAccount:$viewer" \
  --role=roles/storage.objectViewer

may_act_as "$runner" kubeflow/tidemill-runner tidemill-trials/tidemill-trial
may_act_as "$viewer" kubeflow/tidemill-tensorboard kubeflow/ml-pipeline kubeflow/ml-pipeline-ui

gcloud container clusters get-credentials "$CLUSTER" --project="$PROJECT" --location="$ZONE"

printf '# Written by ../../gke/create.sh.\nroot=gs://%s/tidemill\naccounts=%s\n' "$BUCKET" "$accounts" >"$overlay/settings.env"
image=$REGION-docker.pkg.dev/$PROJECT/$REPOSITORY
sed -i "s|newName: .*/tidemill-python-cpu|newName: $image/tidemill-python-cpu|" "$overlay/kustomization.yaml"
echo "images: $image; root: gs://$BUCKET/tidemill"
