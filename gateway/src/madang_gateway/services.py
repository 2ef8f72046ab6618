"""The services that the gateway knows."""

SERVICES = {
    "featurestore": "madang.feature.v1.FeatureStoreService",
    "candidate": "madang.candidate.v1.CandidateService",
    "eta": "madang.eta.v1.EtaService",
    "ranker": "madang.ranker.v1.RankerService",
    "search": "madang.search.v1.SearchService",
    "targeting": "madang.targeting.v1.TargetingService",
}
# Reflection, health and channelz are served by every service; this header says whose is meant.
SERVICE_HEADER = "x-madang-service"
USER_HEADER = "x-madang-user"
