// SPDX-License-Identifier: Apache-2.0

import org.eclipse.edc.runtime.metamodel.annotation.Inject;
import org.eclipse.edc.spi.system.ServiceExtension;
import org.eclipse.edc.spi.system.ServiceExtensionContext;
import org.eclipse.edc.web.jetty.JettyService;

/** Keeps a runtime to this machine; without it every port is open to the network. */
public class Loopback implements ServiceExtension {
    @Inject
    private JettyService server;

    @Override
    public void initialize(ServiceExtensionContext context) {
        server.addConnectorConfigurationCallback(connector -> connector.setHost("127.0.0.1"));
    }
}
