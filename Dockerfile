FROM golang:1.26.8-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN scripts/build.sh /out/gateway && mkdir /out/data

FROM scratch
COPY --from=build /out/gateway /gateway
COPY --from=build --chown=65532:65532 /out/data /data
ENV HOLDFAST_LISTEN=0.0.0.0:5280 \
    HOLDFAST_ADMIN_LISTEN=0.0.0.0:9280 \
    HOLDFAST_DATA_DIR=/data
USER 65532:65532
WORKDIR /data
VOLUME /data
EXPOSE 5280 9280
STOPSIGNAL SIGTERM
ENTRYPOINT ["/gateway"]
CMD ["serve"]
